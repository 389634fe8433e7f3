"""A Redis connection in pub/sub mode."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from aioretryq.drivers.redis import DRIVER_ERRORS
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
        self._connection: Any = server.connection(role)  # untyped in redis-py
        self._silence = silence
        self._asked = False  # by a PING that is not answered yet

    async def open(self, within: float) -> None:
        try:
            with self._server.errors():
                async with asyncio.timeout(within):
                    await self._connection.connect()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        # Without waiting for the other side: closing must be quick, also when the server is gone.
        with contextlib.suppress(*DRIVER_ERRORS):
            await self._connection.disconnect(nowait=True)

    async def send(self, *command: str) -> None:
        """After an error or a cancellation the connection is of no more use: half a command may be on its way."""
        with self._server.errors():
            async with asyncio.timeout(self._silence):
                await self._connection.send_command(*command)

    async def read(self) -> list[Any] | AioretryqError | None:
        """What the server says, or the error that it refused a command with; None after some silence.

        Then it was asked whether it lives; when it says nothing to that either, the connection counts as lost.
        """
        reply = await self._read(self._silence)
        if reply is not None:
            return reply
        if not self._asked:
            self._asked = True
            await self.send("PING")
            return None
        # A late event loop sees the deadline before the reply.
        reply = await self._read(0)
        if reply is None:
            raise self._server.translate(TimeoutError("no reply to a PING"))
        return reply

    async def _read(self, within: float) -> list[Any] | AioretryqError | None:
        try:
            # Being cancelled here costs nothing: what was read in part is read on the next time.
            reply: list[Any] | None = await self._connection.read_response(timeout=within, disconnect_on_error=False)
        except DRIVER_ERRORS as error:
            failure = self._server.translate(error)
            if isinstance(failure, UnavailableError) or not isinstance(error, ResponseError):
                raise failure from error
            failure.__cause__ = error
            return failure
        if reply is not None:
            self._asked = False
        return reply
