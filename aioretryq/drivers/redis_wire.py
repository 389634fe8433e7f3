"""One Redis connection that many callers share: the hot path.

redis-py spends some 130 us of processor time on a command, and a connection carries one command at a time. Here
commands follow each other without waiting for answers, and those of one turn of the event loop are written together:
a command costs 2 to 7 us among others, and 28 us alone, which is what the system's calls take (`benchmarks/wire.py`).
redis-py still connects, logs in and selects the database; then its transport is taken over.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from hiredis import Reader, pack_command
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aioretryq.drivers.redis_connection import MOMENT, NOT_SENT, BrokenStream, is_demoted, unwritable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioretryq.drivers.redis import RedisServer
    from aioretryq.drivers.redis_connection import AnyConnection

logger = logging.getLogger("aioretryq.redis")

PIECE = 2**16
"""Bytes that are read at once. Not more: hiredis moves what it has not parsed yet after each kilobyte."""

_FEW, _LONG, _LONGER = 16, 256, 2048
"""hiredis takes 0.1 us for an argument, and 1.3 ns for each of its bytes, where we take 0.4 us whatever its length.
So it is for commands without arguments of more bytes than `_LONG`, or `_LONGER` if they are few."""

_NOTHING = object()


async def open_wire(
    server: RedisServer,
    role: str,
    *,
    on_push: Callable[[list[Any]], None] | None = None,
    on_lost: Callable[[RedisError], None] | None = None,
) -> Wire:
    """Connect and take over; the driver's errors if that fails."""
    connection = server.connection(role, server.answer_within)
    try:
        await connection.connect()
        return Wire(connection, server.answer_within, on_push=on_push, on_lost=on_lost)
    except BaseException:
        connection.drop()
        raise


class Wire(asyncio.BufferedProtocol):
    """An established connection. When it is lost it is lost: see `Line` for one that comes back.

    Answers are matched to commands by their order. With `on_push` the connection is for messages that nobody asked
    for (pub/sub): it is given all replies of one read, in their order, and commands are sent by `write`.
    """

    def __init__(
        self,
        connection: AnyConnection,
        answer_within: float,
        *,
        on_push: Callable[[list[Any]], None] | None = None,
        on_lost: Callable[[RedisError], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._answer_within = answer_within
        self._on_push = on_push
        self._on_lost = on_lost
        # As a view: asyncio's TLS reads into slices of it, and those of a bytearray are copies.
        self._buffer = memoryview(bytearray(PIECE))
        self._reader: Any = Reader(  # whose stub knows of no memoryview
            protocolError=InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=_NOTHING
        )
        self._unanswered: deque[tuple[asyncio.Future[Any], float]] = deque()  # with the time of its deadline
        self._unwritten: list[bytes] = []  # of the newest commands
        self._flushing = False  # soon
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._late = False  # the oldest answer, as it seems
        self._heard_at = 0.0  # anything
        self._demoted = False
        self._failure: RedisError | None = None
        self._transport: asyncio.Transport = connection.hand_over(self)

    @property
    def open(self) -> bool:
        """Whether commands may be sent: it is not known to be lost, and not to a master of the past."""
        return self._failure is None and not self._demoted

    @property
    def lost(self) -> bool:
        """Whether it is known to be: then there is nothing left to close."""
        return self._failure is not None

    def send(self, command: Sequence[Any]) -> asyncio.Future[Any]:
        """The answer, or as a value the error that is the answer or why there is none: that is never raised here.

        DataError if the command cannot be written as bytes, and then nothing was.

        The future may be cancelled: the answer is not wanted any more then, and the command is carried out
        all the same.
        """
        return self._send(pack(tuple(command)))

    def send_all(self, commands: Sequence[Sequence[Any]]) -> list[asyncio.Future[Any]]:
        """As `send`, with nobody's commands in between; DataError, and nothing written, if one cannot be.

        Else the MULTI of what is written in part would be open for all who share this connection.
        """
        return [self._send(packed) for packed in [pack(tuple(command)) for command in commands]]

    def _send(self, packed: bytes) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self._failure is not None:
            answer.set_result(not_sent(self._failure))
            return answer
        deadline = self._loop.time() + self._answer_within
        idle = not (self._unanswered or self._paused)
        self._unanswered.append((answer, deadline))
        if idle:
            # What comes first goes at once, and what follows meanwhile goes together.
            self._transport.write(packed)
        else:
            self._write_soon(packed)
        if self._timer is None:
            self._look_at(deadline)
        return answer

    def write(self, *commands: tuple[Any, ...]) -> None:
        """Where answers go to `on_push`; nothing happens if the connection is lost. DataError: see `send_all`."""
        if self._failure is None:
            self._transport.write(b"".join(map(pack, commands)))

    def close(self) -> None:
        """Without a farewell: a silent peer would be waited for. What is unanswered fails."""
        self._on_lost = None
        self.fail(RedisConnectionError("the connection was closed here"))

    # -- writing

    def _write_soon(self, packed: bytes) -> None:
        self._unwritten.append(packed)
        if not self._flushing and not self._paused:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._failure is None and not self._paused and self._unwritten:
            written, self._unwritten = self._unwritten, []
            self._transport.writelines(written)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # -- reading

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._heard_at = self._loop.time()
        if self._failure is not None:
            return
        try:
            self._reader.feed(self._buffer, 0, nbytes)
            if self._on_push is None:
                self._answer()
            else:
                self._on_push(list(iter(self._reader.gets, _NOTHING)))
        except InvalidResponse as error:
            self._break(error)
        except Exception as error:
            # Of `on_push`. Left to the event loop it would be a "Fatal error", and nobody would know whose.
            logger.exception("What Redis said was not understood; connecting anew.")
            self._break(error)

    def _break(self, error: Exception) -> None:
        """What comes cannot be read. So the connection is lost: what was asked may have been done all the same."""
        failure = BrokenStream(str(error) or repr(error))
        failure.__cause__ = error
        self.fail(failure)

    def _answer(self) -> None:
        read, unanswered = self._reader.gets, self._unanswered
        while (reply := read()) is not _NOTHING:
            if not unanswered:
                raise InvalidResponse("an answer to no question")
            answer, _ = unanswered.popleft()
            if not answer.done():
                answer.set_result(reply)
            if isinstance(reply, RedisError) and is_demoted(reply):
                self._demoted = True
        if self._demoted and not unanswered:
            self.fail(RedisConnectionError("the server is no master any more"))

    # -- the end

    def connection_lost(self, exc: Exception | None) -> None:
        failure = RedisConnectionError("Connection closed by server." if exc is None else str(exc))
        failure.__cause__ = exc
        self.fail(failure)

    def fail(self, failure: RedisError) -> None:
        """Close it for that reason, which is told to all who wait for answers."""
        if self._failure is not None:
            return
        self._failure = failure
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._connection.drop()
        written = len(self._unanswered) - len(self._unwritten)
        unsent = not_sent(failure) if self._unwritten else failure
        for number, (answer, _) in enumerate(self._unanswered):
            if not answer.done():
                answer.set_result(failure if number < written else unsent)
        self._unanswered.clear()
        self._unwritten.clear()
        if self._on_lost is not None:
            self._on_lost(failure)

    # -- the deadline: of the oldest command only, and one timer for all

    def _look_at(self, when: float) -> None:
        # In a context of its own: that of a caller, with all that it holds, would live as long as the connection.
        self._timer = self._loop.call_at(when, self._look, context=contextvars.Context())

    def _look(self) -> None:
        self._timer = None
        if not self._unanswered:
            self._late = False
            return
        # Whatever comes is the answer of the oldest, or of one before it: over a slow link it may take long.
        deadline, now = max(self._unanswered[0][1], self._heard_at + self._answer_within), self._loop.time()
        if now < deadline:
            self._late = False
            self._look_at(deadline)
        elif not self._late:
            # A late event loop sees the deadline before the answers: let them be read.
            self._late = True
            self._look_at(now + MOMENT)
        else:
            self.fail(RedisTimeoutError("Timeout reading from socket"))


def not_sent(failure: RedisError) -> RedisError:
    """The same for a command that was never written."""
    kind = RedisTimeoutError if isinstance(failure, RedisTimeoutError) else RedisConnectionError
    error = kind(*failure.args)
    error.add_note(NOT_SENT)
    return error


def pack(command: tuple[Any, ...]) -> bytes:
    """The command as it is written. hiredis is three times as fast with short arguments, and 40 times as slow with
    one of 133 kB (5 instead of 180 us), seven times with many messages. DataError for what has no bytes."""
    most = _LONGER if len(command) <= _FEW else _LONG
    try:
        for part in command:
            if type(part) is bytes and len(part) > most:
                return _pack_long(command)
        packed: bytes = pack_command(command)
        return packed
    except UnicodeEncodeError as error:
        raise unwritable(error) from error


def _pack_long(command: tuple[Any, ...]) -> bytes:
    pieces = [b"*%d\r\n" % len(command)]
    for part in command:
        data = part if type(part) is bytes else str(part).encode()
        pieces += (b"$%d\r\n" % len(data), data, b"\r\n")
    return b"".join(pieces)
