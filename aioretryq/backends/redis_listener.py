"""Hearing of results on Redis: one connection in pub/sub mode."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from hiredis import PushNotification

from aioretryq.drivers.redis_connection import MOMENT, BrokenStream
from aioretryq.drivers.redis_wire import Wire, open_wire
from aioretryq.errors import BackendError, BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from redis.exceptions import RedisError

    from aioretryq.drivers.redis import RedisServer
    from aioretryq.errors import AioretryqError

T = TypeVar("T")

_PONG = b"PONG"

CHUNK = 500
"""Ids in one command: long enough to be fast, short enough not to hold up the server's other clients."""


class RedisListener:
    """One connection in pub/sub mode, that does not come back once it is lost.

    With RESP3 such a connection may ask questions, too: so `SUBSCRIBE` goes together with the question whether
    something is there already, in one round trip. For one id that is `MGET`. For many it is `EXISTS`, and only when
    it finds some callers have to look: servers cut off whoever subscribes and has 32 MB of answers coming. Where
    RESP3 is not to be had, callers always look.
    """

    def __init__(self, server: RedisServer, key_prefix: str, answer_within: float) -> None:
        self._server = server
        self._wire: Wire | None = None
        self._questions = False  # may be asked
        self._key_prefix = key_prefix
        self._channel_prefix = len(key_prefix.encode())
        self._answer_within = answer_within
        self._wanted: set[str] = set()
        self._unanswered: deque[_Question] = deque()
        self._unwritten: list[tuple[str, ...]] = []
        self._heard: list[tuple[str, bytes]] = []
        self._hear_now: Callable[[list[tuple[str, bytes]]], None] | None = None
        self._hearing: asyncio.Future[None] | None = None
        self._heard_at = 0.0
        self._silent = 0  # how often the timer has found that nothing was heard
        self._timer: asyncio.TimerHandle | None = None
        self._failure: AioretryqError | None = None

    async def open(self, within: float) -> None:
        with self._server.errors():
            async with asyncio.timeout(within):
                self._wire = await open_wire(self._server, "results", on_push=self._take, on_lost=self._lost)
                try:
                    await self._ask(_Question(0, follows=True), ("HELLO", "3"))
                    self._questions = True
                except BackendError:
                    pass  # an old server, or a proxy that knows less
        self._heard_at = asyncio.get_running_loop().time()
        self._look()

    async def close(self) -> None:
        self._fail(BackendUnavailable(f"The listener on {self._server.display_url} is closed; open a new one."))

    async def subscribe(self, task_ids: Sequence[str]) -> bool | None:
        wanted = list(dict.fromkeys(task_ids))
        with self._server.errors():
            "".join(wanted).encode()  # or what cannot be written could not be given up again, either
        self._wanted.update(wanted)
        try:
            # No deadline of its own: the timer finds out that nobody answers any more.
            found = [await answer for answer in [self._subscribe(chunk) for chunk in _chunks(wanted)]]
        except BackendError:
            await self.unsubscribe(wanted)  # those that it did not refuse
            raise
        return any(found) if self._questions else None

    def _subscribe(self, task_ids: Sequence[str]) -> asyncio.Future[Any]:
        channels = [self._key_prefix + task_id for task_id in task_ids]
        if not self._questions:
            return self._ask(_Question(len(channels)), ("SUBSCRIBE", *channels))
        if len(channels) == 1:
            question = _Question(1, follows=True, about=task_ids[0])
            return self._ask(question, ("SUBSCRIBE", *channels), ("MGET", *channels))
        return self._ask(_Question(len(channels), follows=True), ("SUBSCRIBE", *channels), ("EXISTS", *channels))

    async def unsubscribe(self, task_ids: Sequence[str]) -> None:
        # Not confirmed: what is still announced until the server has read this is dropped here.
        unwanted = [task_id for task_id in dict.fromkeys(task_ids) if task_id in self._wanted]
        self._wanted.difference_update(unwanted)
        for chunk in _chunks(unwanted):
            self._write_soon(("UNSUBSCRIBE", *[self._key_prefix + task_id for task_id in chunk]))

    def hear_now(self, hear: Callable[[list[tuple[str, bytes]]], None]) -> None:
        self._hear_now = hear

    async def receive(self) -> list[tuple[str, bytes]]:
        while not self._heard:
            if self._failure is not None:
                raise self._failure
            self._hearing = asyncio.get_running_loop().create_future()
            await self._hearing
        heard, self._heard = self._heard, []
        return heard

    # -- sending

    def _ask(self, question: _Question, *commands: tuple[str, ...]) -> asyncio.Future[Any]:
        self._write(*commands)
        self._unanswered.append(question)
        return question.answer

    def _write(self, *commands: tuple[str, ...]) -> None:
        if self._failure is not None or self._wire is None:
            raise self._failure or AssertionError("not open")
        self._wire.write(*self._unwritten, *commands)
        self._unwritten.clear()

    def _write_soon(self, command: tuple[str, ...]) -> None:
        """Perhaps something else is to be said in this turn of the event loop: each writing costs 10 us and more."""
        if self._failure is not None:
            raise self._failure
        self._unwritten.append(command)
        if len(self._unwritten) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        if self._unwritten and self._failure is None:
            self._write()

    # -- reading

    def _take(self, replies: list[Any]) -> None:
        """All that one read has brought."""
        self._heard_at, self._silent = asyncio.get_running_loop().time(), 0
        pushed = PushNotification if self._questions else list
        for reply in replies:
            if isinstance(reply, pushed):
                self._hear(reply)
            elif self._questions or reply != _PONG:
                self._answer(reply)
            # Else it is what an old server says to a PING as long as nothing is subscribed: no answer to a question.
        if self._heard and self._hear_now is not None:
            heard, self._heard = self._heard, []
            self._hear_now(heard)
        elif self._heard:
            self._wake()

    def _hear(self, push: list[Any]) -> None:
        kind = push[0]
        if kind == b"message":
            task_id = push[1][self._channel_prefix :].decode()
            if task_id in self._wanted:
                self._heard.append((task_id, push[2]))
        elif kind == b"subscribe" and self._unanswered:
            question = self._unanswered[0]
            question.unconfirmed -= 1
            if not question.unconfirmed and not question.follows:
                self._unanswered.popleft().settle(None)

    def _answer(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            reply = self._translated(reply)
            if not isinstance(reply, BackendError) or not self._unanswered:
                self._fail(reply)
                return
            # Else not the end of the connection: the oldest command without an answer asked for what is not allowed.
        elif not self._unanswered:
            self._lost(BrokenStream("an answer to no question"))
            return
        question = self._unanswered[0]
        if question.unconfirmed:  # in place of confirmations there is one refusal
            question.unconfirmed, question.refusal = 0, reply
            if question.follows:
                return
        elif question.about is not None and isinstance(reply, list):
            # Heard here and not told to whoever asks: what is announced from now on comes after it.
            self._heard += [(question.about, found) for found in reply if found is not None]
            reply = 0
        self._unanswered.popleft().settle(reply)

    def _wake(self) -> None:
        if self._hearing is not None and not self._hearing.done():
            self._hearing.set_result(None)

    # -- the end

    def _look(self) -> None:
        """Nothing was announced: is the server still there? A connection may be dead without a word."""
        loop = asyncio.get_running_loop()
        when = loop.time() + self._answer_within
        if loop.time() < self._heard_at + self._answer_within:
            when = self._heard_at + self._answer_within
        elif self._silent == 0:
            self._silent = 1
            if self._questions:
                self._ask(_Question(0, follows=True), ("PING",))
            else:  # what is answered is no answer then
                self._write(("PING",))
        elif self._silent == 1:  # a late event loop sees the deadline before the reply
            self._silent = 2
            when = loop.time() + MOMENT
        else:
            self._lost(TimeoutError("no reply to a PING"))
            return
        self._timer = loop.call_at(when, self._look)

    def _lost(self, error: RedisError | OSError) -> None:
        self._fail(self._translated(error))

    def _translated(self, error: Any) -> AioretryqError:
        failure = self._server.translate(error)
        failure.__cause__ = error
        return failure

    def _fail(self, failure: AioretryqError) -> None:
        """The first failure stays: whoever still reads or waits for a confirmation gets it too."""
        self._failure = failure = self._failure or failure
        if self._timer is not None:
            self._timer.cancel()
        while self._unanswered:
            self._unanswered.popleft().settle(failure)
        self._wake()
        if self._wire is not None:
            self._wire.close()


class _Question:
    """What the server has still to say: so many confirmations, then perhaps the answer to what `follows`.

    `about` is the task whose document is that answer.
    """

    __slots__ = ("about", "answer", "follows", "refusal", "unconfirmed")

    def __init__(self, unconfirmed: int, *, follows: bool = False, about: str | None = None) -> None:
        self.unconfirmed = unconfirmed
        self.follows = follows
        self.about = about
        self.refusal: AioretryqError | None = None
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.answer.add_done_callback(_seen)

    def settle(self, answer: Any) -> None:
        if self.answer.done():
            return
        answer = self.refusal or answer
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _seen(answered: asyncio.Future[Any]) -> None:
    """Whoever waited may be gone; then its error needs no notice."""
    if not answered.cancelled():
        answered.exception()
