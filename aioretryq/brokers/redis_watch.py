"""Hearing of what changes in Redis, without asking all the time and without taking anything."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aioretryq.drivers.redis import DRIVER_ERRORS, is_passing
from aioretryq.drivers.redis_connection import MOMENT
from aioretryq.drivers.redis_wire import open_wire
from aioretryq.errors import AioretryqError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from aioretryq.drivers.redis import RedisServer
    from aioretryq.drivers.redis_wire import Wire

Range = tuple[str, str, int]
"""Of a sorted set: from which score to which one, and how many members are known there."""

Question = tuple[list[str], tuple[str, ...], int]
"""Keys, a command that counts what is in them, and the answer that is no news."""

logger = logging.getLogger("aioretryq.broker.redis")

ALIVE = 15.0
"""Seconds after which who has heard nothing looks again: a connection may be dead without a word."""

POLL = 0.1
"""Seconds between looks where the server tells nothing by itself."""


class KeyWatch:
    """Wakes those who wait when one of their keys has changed.

    A server that is asked to (CLIENT TRACKING, made for caches) remembers which keys a connection has read, and says
    once when one of them was changed, by whomever. So to look whether there is something is to be told, too, when
    there is: one connection watches any number of keys, takes nothing, and costs nothing while nothing happens.

    The connection is made by the first wait, and anew by the next one after it was lost. Where the server does not
    let us (a proxy, an ACL) it looks ten times a second instead.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._ear: _Ear | None = None
        self._opening = asyncio.Lock()
        self._bell = asyncio.Event()
        self._closed = False

    async def wait(self, lists: Iterable[str], ranges: Mapping[str, Range], seconds: float) -> None:
        """Return when one of `lists` holds something, when one of the sorted sets in `ranges` has not as many members
        in its range as it says, when `ring` is called, or after `seconds`; also when any key has changed that this
        connection has asked for, by whatever wait. Raises `BrokerUnavailable` when the server is gone."""
        lists, bell, deadline = list(lists), self._bell, time.monotonic() + seconds
        ear = await self._connected()
        watched: Collection[str] = ear.watched
        while not self._closed:
            fresh = [key for key in lists if key not in watched]
            questions: list[Question] = [(fresh, ("EXISTS", *fresh), 0)] if fresh else []
            for key in [key for key in ranges if key not in watched]:
                low, high, expected = ranges[key]
                questions.append(([key], ("ZCOUNT", key, low, high), expected))
            if questions and await self._news(ear, questions):
                return
            if await _rung(bell, min(deadline - time.monotonic(), ear.patience)) or time.monotonic() >= deadline:
                break
            watched = ()
        if not self._closed:
            ear.check()

    def ring(self) -> None:
        """End every wait that goes on now."""
        self._bell.set()
        self._bell = asyncio.Event()

    async def close(self) -> None:
        self._closed = True
        if self._ear is not None:
            self._ear.close()
        self.ring()

    async def _news(self, ear: _Ear, questions: Sequence[Question]) -> bool:
        try:
            return await ear.ask(questions)
        except AioretryqError:
            if self._closed:
                return True
            raise

    async def _connected(self) -> _Ear:
        if self._ear is not None and not self._ear.lost:
            return self._ear
        async with self._opening:
            if self._ear is None or self._ear.lost:
                ear = _Ear(self._server, self.ring)
                with self._server.errors():
                    await ear.open()
                self._ear = ear
                if self._closed:
                    ear.close()
            return self._ear


class _Ear:
    """One connection, and of what the server would tell it."""

    def __init__(self, server: RedisServer, ring: Callable[[], None]) -> None:
        self.watched: set[str] = set()
        self.patience = ALIVE
        self._server = server
        self._ring = ring
        self._deaf = False  # the server tells nothing by itself
        self._wire: Wire | None = None
        self._asked: deque[tuple[asyncio.Future[Any], list[str], int]] = deque()
        self._failure: RedisError | OSError | None = None

    async def open(self) -> None:
        """The driver's errors if that fails."""
        self._wire = await open_wire(self._server, "wait", on_push=self._hear, on_lost=self._lose)
        try:
            # RESP3: what nobody asked for comes on the same connection.
            for command in (("HELLO", "3"), ("CLIENT", "TRACKING", "ON")):
                (answer,) = await self._answers([([], command, 0)])
                if isinstance(answer, DRIVER_ERRORS):
                    self._refused(answer)
                    return
        except BaseException:
            self.close()
            raise

    def _refused(self, error: RedisError | OSError) -> None:
        if is_passing(error):
            raise error
        text = "Redis at %s does not tell by itself what has changed (CLIENT TRACKING: %s): messages are looked for"
        logger.warning(f"{text} ten times a second", self._server.display_url, error)
        self.patience, self._deaf = POLL, True

    @property
    def lost(self) -> bool:
        return self._failure is not None

    def check(self) -> None:
        if self._failure is not None:
            raise self._server.translate(self._failure) from self._failure

    def close(self) -> None:
        self._end(RedisConnectionError("the connection was closed here"))

    async def ask(self, questions: Sequence[Question]) -> bool:
        """Whether one of them has news. The keys of the others are watched from then on."""
        answers = await self._answers(questions)
        for answer in answers:
            if isinstance(answer, DRIVER_ERRORS):
                raise self._server.translate(answer) from answer
        return any(answer != expected for answer, (_, _, expected) in zip(answers, questions, strict=True))

    async def _answers(self, questions: Sequence[Question]) -> list[Any]:
        assert self._wire is not None
        if self._failure is not None:
            return [self._failure]
        loop = asyncio.get_running_loop()
        asked = [(loop.create_future(), keys, expected) for keys, _, expected in questions]
        self._asked += asked
        self._wire.write(*(command for _, command, _ in questions))
        last = asked[-1][0]
        # Twice: a late event loop sees the deadline before the answer.
        for seconds in (self._server.answer_within, MOMENT):
            if last in (await asyncio.wait([last], timeout=seconds))[0]:
                return [answer.result() for answer, _, _ in asked]
        self._end(RedisTimeoutError("Timeout reading from socket"))
        return [self._failure]

    def _end(self, error: RedisError) -> None:
        if self._wire is not None:
            self._wire.close()
        self._lose(error)

    def _hear(self, replies: list[Any]) -> None:
        for reply in replies:
            if isinstance(reply, list) and reply[0] == b"invalidate":
                self._forget(reply[1])
            else:
                self._answer(reply)

    def _forget(self, changed: list[bytes] | None) -> None:
        if changed is None:  # all of them: the server was emptied
            self.watched.clear()
        else:
            self.watched.difference_update(key.decode(errors="replace") for key in changed)
        self._ring()

    def _answer(self, reply: Any) -> None:
        answer, keys, expected = self._asked.popleft()
        # Here and not by whoever waits for the answer: what changes next may have been read together with it.
        if reply == expected and not self._deaf:
            self.watched.update(keys)
        if not answer.done():
            answer.set_result(reply)

    def _lose(self, error: RedisError | OSError) -> None:
        self._failure = error
        self.watched.clear()
        for answer, _, _ in self._asked:
            if not answer.done():
                answer.set_result(error)
        self._asked.clear()
        self._ring()


async def _rung(bell: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return False
    return True
