"""Exchanges within one process: who listens, and what is bound."""

from __future__ import annotations

import math
import threading
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from aioretryq.brokers.ears import Ear
from aioretryq.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from aioretryq.message import Binding, Broadcast


class Ears:
    """All who listen, in whatever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ears: tuple[Ear, ...] = ()  # replaced, never changed: other threads may be going through it

    @contextmanager
    def having(self, ear: Ear) -> Iterator[None]:
        with self._lock:
            self._ears = (*self._ears, ear)
        try:
            yield
        finally:
            with self._lock:
                self._ears = tuple(each for each in self._ears if each is not ear)

    def put(self, message: Broadcast, *, exactly: bool = False) -> int:
        """`exactly`: the patterns are none, but routing keys."""
        exchange, key = message.exchange, message.routing_key
        if exactly:
            reached = [ear for ear in self._ears if (ear.exchange, ear.pattern) == (exchange, key)]
        else:
            reached = [ear for ear in self._ears if ear.wants(exchange, key)]
        for ear in reached:
            ear.put(message)
        return len(reached)


class Exchanges:
    """What the brokers of one name share. Bindings are guarded by the lock of their store."""

    def __init__(self) -> None:
        self.listeners = Ears()
        self.inboxes = Ears()
        self._bound: dict[Binding, float] = {}
        """When each expires."""

    def bind(self, bindings: Sequence[Binding], now: float) -> None:
        for binding in bindings:
            until = math.inf if binding.expires is None else now + binding.expires
            self._bound[replace(binding, expires=None)] = until

    def unbind(self, bindings: Sequence[Binding]) -> None:
        for binding in bindings:
            self._bound.pop(replace(binding, expires=None), None)

    def bound(self, exchange: str, now: float) -> list[Binding]:
        return [binding for binding, until in self._bound.items() if binding.exchange == exchange and until > now]

    def drop_expired(self, now: float) -> set[str]:
        """The queues that went away because nobody has used them for too long."""
        expired = [binding for binding, until in self._bound.items() if until <= now]
        self.unbind(expired)
        return {binding.queue for binding in expired}


class MemoryBus:
    """`exchanges` gives what is shared, and raises when the broker is not open."""

    def __init__(self, exchanges: Callable[[], Exchanges]) -> None:
        self._exchanges = exchanges
        self._own: set[Ear] = set()

    async def publish(self, messages: Sequence[Broadcast]) -> list[int]:
        listeners = self._exchanges().listeners
        return [listeners.put(message) for message in messages]

    def listen(self, exchange: str, pattern: str = "#") -> AbstractAsyncContextManager[Ear]:
        return self._listen(self._exchanges().listeners, exchange, pattern)

    async def answer(self, message: Broadcast, *, ttl: float) -> int:
        return self._exchanges().inboxes.put(message, exactly=True)

    def inbox(self, exchange: str, routing_key: str, *, ttl: float) -> AbstractAsyncContextManager[Ear]:
        return self._listen(self._exchanges().inboxes, exchange, routing_key)

    @asynccontextmanager
    async def _listen(self, ears: Ears, exchange: str, pattern: str) -> AsyncIterator[Ear]:
        ear = Ear(exchange, pattern)
        self._own.add(ear)
        try:
            with ears.having(ear):
                yield ear
        finally:
            self._own.discard(ear)

    def close(self) -> None:
        for ear in self._own:
            ear.fail(BrokerUnavailable("The broker was closed; listen again once it is open."))
