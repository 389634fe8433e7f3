"""A proxy that loses replies of scripts, or has the server get the call late: the client's connection breaks."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

import pytest
import redis

from aioretryq.errors import BrokerUnavailable

PIECE = 2**16
SCRIPTS = b"EVALSHA"


class LossyProxy:
    """For a server that freezes and goes on: it carries out what is in its sockets, and nobody reads the replies."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._losing = False
        self._gate: asyncio.Event | None = None
        self._kept = SCRIPTS
        self._halted: tuple[bytes, asyncio.Event, asyncio.Event] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def lose_replies(self) -> None:
        """Of scripts: the server has done it, and the client finds the connection closed."""
        self._losing = True

    def hold_requests(self, containing: bytes = SCRIPTS) -> asyncio.Event:
        """The client finds the connection closed, and the server gets the request once the event is set."""
        self._gate, self._kept = asyncio.Event(), containing
        return self._gate

    def halt(self, containing: bytes) -> tuple[asyncio.Event, asyncio.Event]:
        """Of such a request the first event tells that it is here; with the second it goes on, and nobody notices."""
        _, here, go = self._halted = (containing, asyncio.Event(), asyncio.Event())
        return here, go

    def flow(self) -> None:
        """What comes from now on passes; what is held stays held."""
        self._losing, self._gate = False, None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._target)
        last = bytearray()  # what was asked last on this connection, to know what a reply is about

        async def requests() -> None:
            with contextlib.closing(ours), contextlib.suppress(OSError):
                while piece := await reader.read(PIECE):
                    last[:] = piece
                    if self._gate is not None and self._kept in piece:
                        writer.close()
                        await self._gate.wait()
                    if self._halted is not None and self._halted[0] in piece:
                        self._halted[1].set()
                        await self._halted[2].wait()
                    ours.write(piece)
                    await ours.drain()

        async def replies() -> None:
            with contextlib.closing(writer), contextlib.suppress(OSError):
                while piece := await theirs.read(PIECE):
                    if self._losing and SCRIPTS in last:
                        return
                    writer.write(piece)
                    await writer.drain()

        for pump in (requests(), replies()):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def scripts_run(server: redis.Redis) -> int:
    return server.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]


async def lose_reply(proxy, *operations):
    """The server does it, and the client does not hear of it."""
    proxy.lose_replies()
    for answer in await asyncio.gather(*operations, return_exceptions=True):
        assert isinstance(answer, BrokerUnavailable), answer
    proxy.flow()


async def come_late(proxy, operation):
    """The client gives up before the server begins; setting what is returned lets the server begin."""
    gate = proxy.hold_requests()
    with pytest.raises(BrokerUnavailable):
        await operation
    proxy.flow()
    return gate


async def arrive(gate, server):
    before = scripts_run(server)
    gate.set()
    async with asyncio.timeout(10):
        while scripts_run(server) == before:
            await asyncio.sleep(0.001)
