"""A Redis connection in pub/sub mode."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from aioretryq.drivers.redis_connection import MOMENT
from aioretryq.drivers.redis_wire import Wire, open_wire
from aioretryq.errors import UnavailableError

if TYPE_CHECKING:
    from aioretryq.drivers.redis import RedisServer
    from aioretryq.errors import AioretryqError


class PubSubConnection:
    """Reads for as long as it takes, and notices when the other side is gone without a word.

    Not redis-py's PubSub: that connects and subscribes again by itself when the connection is lost, and what
    was published in between is lost without a word. One task may send while another one reads.
    """

    def __init__(self, server: RedisServer, role: str, *, silence: float) -> None:
        self._server = server
        self._role = role
        self._wire: Wire | None = None
        self._silence = silence
        self._asked = False  # by a PING that is not answered yet
        self._replies: deque[Any] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self._failure: AioretryqError | None = None

    async def open(self, within: float) -> None:
        with self._server.errors():
            async with asyncio.timeout(within):
                self._wire = await open_wire(self._server, self._role, on_push=self._take, on_lost=self._lost)

    async def close(self) -> None:
        # Without waiting for the other side: closing must be quick, also when the server is gone.
        if self._wire is not None:
            self._wire.close()

    async def send(self, *command: str) -> None:
        """Whether it is carried out is seen by what is read."""
        if self._failure is not None or self._wire is None:
            raise self._failure or AssertionError("not open")
        with self._server.errors():
            self._wire.write(command)

    async def read(self) -> list[Any] | AioretryqError | None:
        """What the server says, or the error that it refused a command with; None after some silence.

        Then it was asked whether it lives; when it says nothing to that either, the connection counts as lost.
        """
        while not self._replies:
            if await self._arrives(self._silence):
                self._asked = False
            elif not self._asked:
                self._asked = True
                await self.send("PING")
                return None
            elif not await self._arrives(MOMENT):  # a late event loop sees the deadline before the reply
                raise self._server.translate(TimeoutError("no reply to a PING"))
        self._asked = False
        return self._told(self._replies.popleft())

    async def _arrives(self, within: float) -> bool:
        """Whether anything does in time, be it part of a long reply."""
        if self._failure is not None:
            raise self._failure
        self._arrival = arrival = asyncio.get_running_loop().create_future()
        # Being cancelled here costs nothing: what arrives is read the next time.
        await asyncio.wait([arrival], timeout=within)
        return arrival.done()

    def _told(self, reply: Any) -> list[Any] | AioretryqError:
        if not isinstance(reply, RedisError):
            found: list[Any] = reply
            return found
        failure = self._translated(reply)
        if isinstance(failure, UnavailableError):
            raise failure
        return failure

    def _take(self, replies: list[Any]) -> None:
        self._replies += replies
        self._wake()

    def _lost(self, error: RedisError | OSError) -> None:
        self._failure = self._translated(error)
        self._wake()

    def _translated(self, error: RedisError | OSError) -> AioretryqError:
        failure = self._server.translate(error)
        failure.__cause__ = error
        return failure

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
