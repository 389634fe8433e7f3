"""Where a worker's messages come from: queues, which it keeps bound to their exchanges, and fanout exchanges.

What is broadcast there reaches those who listen at that moment, and is gone. So a worker puts what it hears into a
queue of its own, from where it takes it as it takes all others: with a lease, retries and dead letters. The queue is
deleted when the worker stops; after a crash it goes away by itself.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import anyio

from aioretryq.errors import BrokerError, BrokerUnavailable, ProtocolError
from aioretryq.message import Binding, Outgoing
from aioretryq.protocol.envelope import decode
from aioretryq.queues import DIRECT, FANOUT, Broadcast, Queue
from aioretryq.topology import BROADCAST_PREFIX, topology_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aioretryq import message as messages
    from aioretryq.app import TaskQueue
    from aioretryq.brokers.base import BusListener
    from aioretryq.outage import Outage
    from aioretryq.worker.fetcher import Fetcher

logger = logging.getLogger("aioretryq.worker")

OWN_QUEUE_LIFE = 3600.0
"""Seconds for which the queue of a worker that has crashed waits for it to come back."""

BOUND_AGAIN = 60.0
"""Seconds after which queues are bound anew: the server may have lost its data."""


class Sources:
    def __init__(self, queue: TaskQueue, names: Iterable[str], *, node: str, outage: Outage) -> None:
        topology = topology_of(queue.conf)
        found = [topology.find(name) for name in names]
        self._broker = queue.broker
        self._outage = outage
        self._exchanges = list(dict.fromkeys(each.exchange for each in found if isinstance(each, Broadcast)))
        self._own = BROADCAST_PREFIX + node
        self._bindings = topology.bindings(each for each in found if isinstance(each, Queue))
        self._own_bindings = [
            # Celery's senders that do not know that it is a fanout exchange find the queue by this routing key.
            Binding(exchange, DIRECT, topology.default_key, self._own, OWN_QUEUE_LIFE)
            for exchange in self._exchanges
        ]
        self.queues = [each.name for each in found if isinstance(each, Queue)]
        if self._exchanges:
            self.queues.append(self._own)
        self._deaf = set(self._exchanges)
        self.listening = anyio.Event()
        """Set once it is bound, and hears all fanout exchanges."""

    def describe(self, fetcher: Fetcher) -> None:
        """Tell what remote control shows of the queues."""
        for binding in self._bindings:
            fetcher.add(binding.queue, (binding.exchange, binding.kind, binding.routing_key))
        for exchange in self._exchanges:
            fetcher.add(self._own, (exchange, FANOUT, ""))

    async def run(self) -> None:
        await self._bind()
        async with anyio.create_task_group() as group:
            group.start_soon(self._stay_bound)
            for exchange in self._exchanges:
                group.start_soon(self._follow, exchange)
            self._heard_by_now()

    # -- bindings

    async def _stay_bound(self) -> None:
        lives = [binding.expires for binding in self._bindings if binding.expires is not None]
        while True:
            await anyio.sleep(min([BOUND_AGAIN, *(life / 3 for life in lives)]))
            await self._bind()

    async def _bind(self) -> None:
        try:
            await self._broker.bind([*self._bindings, *self._own_bindings])
        except (BrokerUnavailable, BrokerError) as error:
            # What is sent straight to the queues arrives all the same: no reason to wait.
            logger.warning("Queues are not bound to their exchanges, it is tried again: %s", error)

    # -- broadcasts

    async def _follow(self, exchange: str) -> None:
        while True:
            async with AsyncExitStack() as stack:
                listener = await self._outage.survive(partial(self._listen, stack, exchange))
                self._deaf.discard(exchange)
                self._heard_by_now()
                try:
                    while True:
                        await self._keep(exchange, await listener.receive())
                except BrokerUnavailable as error:
                    logger.info("Broadcasts of %s are not heard for a moment: %s", exchange, error)

    async def _listen(self, stack: AsyncExitStack, exchange: str) -> BusListener:
        return await stack.enter_async_context(self._broker.bus().listen(exchange))

    def _heard_by_now(self) -> None:
        if not self._deaf:
            self.listening.set()

    async def _keep(self, exchange: str, heard: Sequence[messages.Broadcast]) -> None:
        kept = []
        for broadcast in heard:
            try:
                found = decode(broadcast.body)
            except ProtocolError as error:
                logger.error("What was broadcast on %s cannot be read, and is dropped: %s", exchange, error)
                continue
            priority = found.properties.get("priority")
            tag = f"{found.properties.get('delivery_tag')} {self._own}"
            kept.append(Outgoing(self._own, broadcast.body, tag, priority if type(priority) is int else 0))
        try:
            await self._outage.survive(lambda: self._broker.send(kept))
        except BrokerError as error:
            logger.error("%d messages that were broadcast on %s are lost: %s", len(kept), exchange, error)

    async def leave(self) -> None:
        """Delete the queue of this worker's own, with what it has not done."""
        if not self._exchanges:
            return
        try:
            await self._broker.unbind(self._own_bindings)
            if count := await self._broker.purge(self._own):
                logger.warning("%d messages that were broadcast to this worker are dropped", count)
        except (BrokerUnavailable, BrokerError) as error:
            logger.warning("Queue %s goes away later: %s", self._own, error)
