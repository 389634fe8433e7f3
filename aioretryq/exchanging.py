"""Sending to exchanges: a copy for each queue that is bound, or a broadcast to all who listen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5

from aioretryq.errors import BrokerError
from aioretryq.ids import new_id
from aioretryq.message import Broadcast, Outgoing
from aioretryq.protocol.task import encode_task, too_large
from aioretryq.queues import FANOUT
from aioretryq.routing import targets
from aioretryq.topology import BROADCAST_PREFIX, topology_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aioretryq.brokers.base import Broker
    from aioretryq.config import Settings
    from aioretryq.message import TaskMessage

logger = logging.getLogger("aioretryq")


class ToExchange(Outgoing, frozen=True):
    """On its way to an exchange: `queue` is the routing key. A broker cannot send it, `Exchanging` makes it ready."""

    exchange: str = ""
    kind: str = ""


def outgoing(message: TaskMessage, body: bytes, tag: str, *, fresh: bool = False) -> Outgoing:
    """The message as it is sent; `body` is what `encode_task` made of it, with the same tag."""
    if not message.exchange:
        return Outgoing(message.routing_key, body, tag, message.priority, fresh=fresh)
    to, kind = message.exchange, message.exchange_type
    return ToExchange(message.routing_key, body, tag, message.priority, fresh=fresh, exchange=to, kind=kind)


def packed(message: TaskMessage, settings: Settings) -> Outgoing:
    """The message ready to be sent, under a tag of its own. EncodeError, and PayloadTooLarge, say that it was not."""
    tag, limit = new_id(), settings.max_payload_bytes
    payload = encode_task(message, tag=tag, max_size=limit)
    if len(payload) > limit:
        raise too_large(f"{message.task}[{message.id}]", "its message has", len(payload), limit)
    return outgoing(message, payload, tag, fresh=True)


class Exchanging:
    """Finds out who gets what is sent to an exchange."""

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self._broker = broker
        self._settings = settings

    @staticmethod
    def concerns(messages: Sequence[Outgoing]) -> bool:
        """Whether some of them are not ready to be sent. Nearly never."""
        return ToExchange in map(type, messages)

    async def ready(self, messages: Sequence[Outgoing]) -> list[Outgoing]:
        """What the broker is to send. Broadcasts have been published when this returns.

        BrokerError where no queue is bound. May be called again with the same messages.
        """
        made: list[Outgoing] = []
        published: list[ToExchange] = []
        for message in messages:
            if not isinstance(message, ToExchange):
                made.append(message)
            elif (queues := await self._queues(message)) is None:
                published.append(message)
            else:
                made += [_copy(message, queue) for queue in queues]
        if published:
            await self._publish(published)
        return made

    async def _queues(self, message: ToExchange) -> list[str] | None:
        """None for a fanout exchange."""
        if message.kind == FANOUT:
            return None
        declared = [b for b in topology_of(self._settings).bindings() if b.exchange == message.exchange]
        if declared:
            await self._broker.bind(declared)
        bound = await self._broker.bindings(message.exchange)
        queues = targets(bound, message.queue)
        if bound and all(binding.queue.startswith(BROADCAST_PREFIX) for binding in bound):
            # Who sends has not been told that this is a fanout exchange; those who listen there have said so.
            return None
        if not queues:
            raise BrokerError(
                f"No queue is bound to exchange {message.exchange!r} with a routing key that fits {message.queue!r}. "
                "Declare one in task_queues, or start the worker that does; a fanout exchange is declared with "
                "Broadcast(name)."
            )
        return queues

    async def _publish(self, messages: Iterable[ToExchange]) -> None:
        broadcasts = [Broadcast(message.exchange, message.queue, message.body) for message in messages]
        for broadcast, count in zip(broadcasts, await self._broker.bus().publish(broadcasts), strict=True):
            if not count:
                logger.info("Nobody listens to the fanout exchange %s: a message is gone", broadcast.exchange)


def _copy(message: ToExchange, queue: str) -> Outgoing:
    # Each copy has a tag of its own, in the message too: with one tag, consumers of two queues would acknowledge each
    # other's copy. It is the same whenever this message is sent again.
    tag = str(uuid5(NAMESPACE_OID, f"{message.tag} {queue}"))
    body = message.body.replace(message.tag.encode(), tag.encode())
    counts = (message.deliveries, message.interruptions)
    return Outgoing(queue, body, tag, message.priority, message.due, message.offered, *counts, fresh=message.fresh)
