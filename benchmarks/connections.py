"""How many connections to the Redis server this process has, as the server sees it."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from redis.asyncio import Redis

from benchmarks import place

if TYPE_CHECKING:
    from types import TracebackType

OBSERVER = "benchmark-observer"
INTERVAL = 0.2


class ConnectionCounter:
    """While entered, keeps the highest number it sees in `most`; it stays 0 where there is no server."""

    def __init__(self) -> None:
        self.most = 0
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if place.URL.startswith("redis"):
            self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def _watch(self) -> None:
        observer: Any = Redis.from_url(place.URL, client_name=OBSERVER)
        async with observer:
            while True:
                listed = await observer.client_list()
                own = own_addresses()
                count = sum(row["addr"] in own and row["name"] != OBSERVER for row in listed)
                self.most = max(self.most, count)
                await asyncio.sleep(INTERVAL)


def own_addresses() -> set[str]:
    """The local ends of this process's sockets, as CLIENT LIST writes them."""
    found: set[str] = set()
    for name in os.listdir("/dev/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as opened:  # most are not sockets
            if opened.family == socket.AF_INET:
                host, port = opened.getsockname()
                found.add(f"{host}:{port}")
    return found
