"""Connections to Redis: redis-py's, but given up neither too early nor too late."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any, cast

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, MasterDownError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_SENT = "Nothing was sent to Redis."
"""Note on an error that came before the command was sent."""

MOMENT = 0.02
"""Seconds for a reply that has arrived and was not read because the event loop was busy elsewhere."""

# After a failover the address leads to the new master, and an old connection still to the old one.
_DEMOTED = (ReadOnlyError, MasterDownError)
# redis-py has no class for the one, and Redis 6.2 wraps the errors of a script's commands.
_DEMOTED_CODES = re.compile(r"\b(READONLY|UNBLOCKED|MASTERDOWN)\b")


class BrokenStream(RedisConnectionError):
    """What came over an established connection cannot be read as answers, so nobody knows what was done."""


def unwritable(error: UnicodeEncodeError) -> DataError:
    """In the driver's words: a command that has no bytes, such as one that names half a surrogate pair."""
    shown = error.object if len(error.object) <= 100 else f"{error.object[error.start : error.end]}"
    return DataError(f"{shown!r} cannot be encoded: {error.reason}")


def is_demoted(error: RedisError) -> bool:
    """Whether a master of the past says that: the connection leads to the wrong server."""
    return isinstance(error, ResponseError) and (
        isinstance(error, _DEMOTED) or _DEMOTED_CODES.search(str(error)) is not None
    )


class _Connection(AbstractConnection):
    async def connect(self) -> None:
        parent: Any = super()  # untyped in redis-py
        try:
            await parent.connect()
        except (RedisError, OSError) as error:
            error.add_note(NOT_SENT)
            raise

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        # Within a deadline redis-py sends in `asyncio.wait_for`, which before Python 3.12 drops a cancellation that
        # comes in the moment the sending ends: then nobody would ever know of it. So the deadline is set here.
        if not self.is_connected:
            await self.connect()
        limit, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(limit):
                await super().send_packed_command(*args, **options)
        except TimeoutError as error:
            raise RedisTimeoutError("Timeout writing to socket") from error
        finally:
            self.socket_timeout = limit

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await self._read_patiently(*args, **options)
        except ResponseError as error:
            if is_demoted(error):
                await self.disconnect(nowait=True)
            raise

    async def _read_patiently(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **{**options, "disconnect_on_error": False})
        except RedisTimeoutError:
            # A late event loop sees the deadline before the reply: look once more. What was read in part is kept.
            with self._answering_within(MOMENT):
                return await super().read_response(*args, **options)
        except ResponseError:
            raise
        except BaseException:
            if options.get("disconnect_on_error", True):
                await self.disconnect(nowait=True)
            raise

    @contextlib.contextmanager
    def _answering_within(self, seconds: float) -> Iterator[None]:
        usual, self.socket_timeout = self.socket_timeout, seconds
        try:
            yield
        finally:
            self.socket_timeout = usual

    async def disconnect(self, *args: Any, **options: Any) -> None:
        # Without a farewell: a silent peer would be waited for, and nothing that matters is still to be sent.
        if (writer := self._writer) is not None:
            writer.transport.abort()
        await super().disconnect(*args, **options)

    def hand_over(self, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Have `protocol` hear what comes from now on; this object is kept until it is dropped, and for nothing else.

        Nothing is under way: all that was asked while connecting is answered.
        """
        reader, writer = self._reader, self._writer
        if reader is None or writer is None or reader.at_eof() or writer.transport.is_closing():
            # Its end was told already, and will not be told again.
            error = RedisConnectionError("Connection closed by server.")
            error.add_note(NOT_SENT)
            raise error
        transport = cast("asyncio.Transport", writer.transport)
        transport.set_protocol(protocol)
        return transport

    def drop(self) -> None:
        """Close it at once, also from where nothing can be awaited."""
        if (writer := self._writer) is not None:
            writer.transport.abort()
        parent: Any = super()
        parent._close()


class TCPConnection(_Connection, Connection):
    pass


class TLSConnection(_Connection, SSLConnection):
    pass


class SocketConnection(_Connection, UnixDomainSocketConnection):
    pass


AnyConnection = TCPConnection | TLSConnection | SocketConnection
