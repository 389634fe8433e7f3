"""From the settings and what a call says to the exchange and routing key that a message is sent with. Pure."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct

from aioretryq.errors import ConfigError, did_you_mean
from aioretryq.message import Binding
from aioretryq.queues import DIRECT, FANOUT, KINDS, TOPIC, Broadcast, Queue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aioretryq.config import Settings
    from aioretryq.routing import Route

BROADCAST_PREFIX = "bcast."
"""How the names of the queues begin that stand for one consumer of a fanout exchange; kombu's, too."""


class Address(Struct, frozen=True):
    """Where a message is sent to. Without an exchange the routing key is the name of the queue."""

    exchange: str
    routing_key: str
    kind: str = DIRECT


class Defaults(Struct, frozen=True):
    queue: str
    exchange: str | None
    exchange_type: str
    routing_key: str | None


class Topology:
    """The queues and exchanges that the settings declare, completed as Celery does."""

    def __init__(
        self, declared: tuple[Queue | Broadcast, ...], defaults: Defaults, *, create_missing: bool = True
    ) -> None:
        self._defaults = defaults
        self.default_key = defaults.routing_key or defaults.queue
        self._create_missing = create_missing or not declared
        self.names = [each.name for each in declared] or [defaults.queue]
        """Where a worker takes its messages from, unless it is told."""
        self._queues = {each.name: self._complete(each) for each in declared}
        if defaults.queue not in self._queues and (not declared or create_missing):
            self._queues[defaults.queue] = self._complete(Queue(defaults.queue))
        self._kinds = {each.exchange: kind_of(each) for each in self._queues.values()}

    def _complete(self, queue: Queue | Broadcast) -> Queue | Broadcast:
        if isinstance(queue, Broadcast):
            return queue
        if queue.exchange:
            return replace(queue, routing_key=queue.routing_key or self.default_key)
        defaults = self._defaults
        if defaults.exchange or TOPIC in (defaults.exchange_type, queue.exchange_type):
            kind = TOPIC if TOPIC in (defaults.exchange_type, queue.exchange_type) else DIRECT
            exchange = defaults.exchange or defaults.queue
            return replace(
                queue, exchange=exchange, exchange_type=kind, routing_key=queue.routing_key or self.default_key
            )
        # Celery binds it to the default exchange with the default key, so that it gets a copy of everything that is
        # sent there. A queue that nobody declared has an exchange of its own name, there and here.
        return replace(queue, exchange=queue.name, routing_key=queue.routing_key or queue.name)

    def find(self, name: str) -> Queue | Broadcast:
        """What the settings declare, or else a direct queue; ConfigError where those are not to be created."""
        found = self._queues.get(name)
        if found is not None:
            return found
        if not self._create_missing:
            raise ConfigError(
                f"There is no queue {name!r} in task_queues, and task_create_missing_queues is off."
                f"{did_you_mean(name, self._queues)}"
            )
        return Queue(name, name, DIRECT, name)

    def address(self, levels: Sequence[Route]) -> Address:
        """Of a message; `levels` say what they know of it, the first one that names queue or exchange decides."""
        deciding = next((each for each in levels if each.queue is not None or each.exchange is not None), None)
        key = next((each.routing_key for each in levels if each.routing_key is not None), None)
        if deciding is not None and deciding.exchange is not None:
            return self._to_exchange(deciding.exchange, key, deciding)
        if deciding is None or deciding.queue is None:
            return self._to_default(key)
        return self.to_queue(deciding.queue, key)

    def _to_default(self, key: str | None) -> Address:
        name = self._defaults.queue
        if key is not None and kind_of(self.find(name)) == DIRECT:
            return self.to_queue(key)
        return self.to_queue(name, key)

    def to_queue(self, name: str | None, key: str | None = None) -> Address:
        """Of a message to that queue, or the default one."""
        name = name or self._defaults.queue
        found = self._queues.get(name)
        if found is None and self._create_missing:
            return Address("", name)
        found = found or self.find(name)
        if isinstance(found, Broadcast):
            own = self.default_key if found.routing_key is None else found.routing_key
            return Address(found.exchange, own if key is None else key, FANOUT)
        if found.exchange_type == DIRECT:
            return Address("", name)
        return Address(found.exchange or "", key or found.routing_key or "", found.exchange_type)

    def _to_exchange(self, exchange: str, key: str | None, said: Route) -> Address:
        kind = said.exchange_type or self._kinds.get(exchange, DIRECT)
        if kind not in KINDS:
            raise ConfigError(f"There is no exchange_type {kind!r} here; use one of {', '.join(KINDS)}.")
        if key is None and said.queue is not None:
            found = self.find(said.queue)
            key = said.queue if isinstance(found, Broadcast) else found.routing_key
        if key is None:
            if kind != FANOUT:
                raise ConfigError(f"Sending to the {kind} exchange {exchange!r} takes a routing_key.")
            key = self.default_key
        return Address(exchange, key, DIRECT if not exchange else kind)

    def bindings(self, queues: Iterable[Queue | Broadcast] | None = None) -> list[Binding]:
        """Of these queues, else of all that are declared."""
        return [
            Binding(each.exchange or "", each.exchange_type, each.routing_key or "", each.name, each.expires)
            for each in (self._queues.values() if queues is None else queues)
            if isinstance(each, Queue)
        ]


def kind_of(queue: Queue | Broadcast) -> str:
    return FANOUT if isinstance(queue, Broadcast) else queue.exchange_type


def topology_of(settings: Settings) -> Topology:
    return _topology(
        settings.task_queues,
        settings.task_default_queue,
        settings.task_default_exchange,
        settings.task_default_exchange_type,
        settings.task_default_routing_key,
        settings.task_create_missing_queues,
    )


@lru_cache(maxsize=64)
def _topology(
    declared: tuple[Queue | Broadcast, ...],
    queue: str,
    exchange: str | None,
    exchange_type: str,
    routing_key: str | None,
    create_missing: bool,
) -> Topology:
    return Topology(declared, Defaults(queue, exchange, exchange_type, routing_key), create_missing=create_missing)
