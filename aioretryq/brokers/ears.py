"""What a listener of the bus has heard and nobody has received yet, on every broker."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from aioretryq.drivers.wakeup import Wakeup
from aioretryq.routing import topic_matches

if TYPE_CHECKING:
    from aioretryq.errors import AioretryqError
    from aioretryq.message import Broadcast

MEMORY = 32 * 2**20
"""Bytes that wait in one ear; beyond that the oldest messages are dropped."""

_OVERHEAD = 400  # of each message, so that very many tiny ones are bounded too


class Ear:
    """Belongs to the event loop it was made in; any thread may put something into it."""

    def __init__(self, exchange: str, pattern: str, *, memory: int = MEMORY) -> None:
        self.exchange = exchange
        self.pattern = pattern
        self.dropped = 0
        """Messages that were thrown away because nobody received them soon enough."""
        self._memory = memory
        self._heard: deque[Broadcast] = deque()
        self._bytes = 0
        self._failure: AioretryqError | None = None
        self._lock = threading.Lock()
        self._bell = Wakeup()

    def wants(self, exchange: str, routing_key: str) -> bool:
        return exchange == self.exchange and topic_matches(self.pattern, routing_key)

    def put(self, message: Broadcast) -> None:
        with self._lock:
            self._heard.append(message)
            self._bytes += _size(message)
            while self._bytes > self._memory and len(self._heard) > 1:
                self._bytes -= _size(self._heard.popleft())
                self.dropped += 1
        self._bell.set()

    def fail(self, error: AioretryqError) -> None:
        """Once everything is received that was heard before, `receive` raises this."""
        self._failure = self._failure or error
        self._bell.set()

    async def receive(self) -> list[Broadcast]:
        while True:
            self._bell.clear()  # before the look: what comes after it rings again
            with self._lock:
                heard, self._bytes = list(self._heard), 0
                self._heard.clear()
            if heard:
                return heard
            if self._failure is not None:
                raise self._failure
            await self._bell.wait()


def _size(message: Broadcast) -> int:
    return len(message.body) + len(message.routing_key) + _OVERHEAD
