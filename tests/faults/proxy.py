"""A network that can be broken: a TCP proxy in a thread of its own, so that a busy test does not slow it down."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from redis_server import free_port

T = TypeVar("T")
CHUNK = 2**16


@dataclass(eq=False, slots=True)
class _Link:
    """One connection, both halves of it. A `silent` one swallows everything, an end of file included, for ever."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    silent: bool = False
    task: asyncio.Task[Any] | None = None
    """Held here, or the garbage collector would end what nobody else waits for."""

    def abort(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                writer.transport.abort()


class Proxy:
    """Between clients and the server at `target` (a port of this machine); listens on `port`.

    `target` may be changed, for connections to come. Methods may be called from any thread, and have taken effect
    when they return.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.accepted = 0
        self.target = target
        self.unheard = 0
        """Bytes of answers that no client has got."""
        self._delay = 0.0
        self._silent = self._deaf = False
        self._links: set[_Link] = set()
        self._listening: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._do(self._listen())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # -- faults

    def drop(self) -> None:
        """Close all connections, once, with a reset; new ones are welcome."""
        self._do(self._drop())

    def cut(self) -> None:
        """Close all connections and refuse new ones, until `heal`."""
        self._do(self._cut())

    def deafen(self) -> None:
        """The server goes on hearing, and is not heard any more: until `drop`."""
        self._deaf = True

    def black_hole(self) -> None:
        """Nothing arrives any more, either way, and nobody is told. Connections that exist or are made until `heal`
        stay silent for ever: half-open, as after the failover of a NAT gateway."""
        self._do(self._black_hole())

    def delay(self, seconds: float) -> None:
        """Everything arrives later by so much, until `heal`."""
        self._delay = seconds

    def heal(self) -> None:
        self._do(self._heal())

    @property
    def connections(self) -> int:
        """That are open and not silent."""
        return sum(not link.silent for link in list(self._links))

    # -- inside of the thread

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)

    async def _drop(self) -> None:
        self._deaf = False
        for link in list(self._links):
            link.abort()

    async def _cut(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        await self._drop()

    async def _black_hole(self) -> None:
        self._silent = True
        for link in self._links:
            link.silent = True

    async def _heal(self) -> None:
        self._silent, self._delay = False, 0.0
        if self._listening is None:
            await self._listen()

    async def _close(self) -> None:
        await self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(writer, silent=self._silent, task=asyncio.current_task())
        self._links.add(link)
        try:
            if link.silent:
                await self._pump(link, reader, None)
                return
            answers, link.server = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.gather(self._pump(link, reader, link.server), self._pump(link, answers, writer))
        except (OSError, asyncio.CancelledError):  # the server is gone, or this proxy is being closed
            pass
        finally:
            self._links.discard(link)
            link.abort()

    async def _pump(self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter | None) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                if self._deaf and sink is link.client:
                    self.unheard += len(data)
                elif not link.silent and sink is not None:
                    sink.write(data)
                    await sink.drain()
        if link.silent and sink is not None:
            await asyncio.Event().wait()  # the other side never hears of it
        if sink is not None:
            sink.transport.abort()
