"""Waiting for results: one listener for a whole process, however many wait.

Nobody waits: nothing is subscribed. Somebody waits: fetch, subscribe, and fetch again once the subscription
is confirmed (unless the backend says with that that nothing is there), so that a result stored in between is not
missed. The connection was lost: everything awaited is subscribed and fetched again. And because announcements can be
lost without a trace, everything awaited is also fetched every `poll_interval` seconds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio

from aioretryq import states
from aioretryq.backends.base import PromptListener
from aioretryq.backends.watches import CHUNK, WINDOW, ManyWatch, Watch
from aioretryq.deadlines import Deadlines
from aioretryq.errors import BackendError, BackendUnavailable, NotOpenError
from aioretryq.outage import Outage
from aioretryq.protocol.result import status_of
from aioretryq.retry import RECONNECT_POLICY, retrying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from aioretryq.backends.base import ResultBackend, ResultListener
    from aioretryq.retry import Attempt

AnyWatch = Watch | ManyWatch

CLOSED = "The queue was closed while this result was awaited; open it again with `async with queue:`."

REFUSED_PAUSE = 0.5
"""Seconds before a backend that refused is asked again."""

LINGER = 0.1
"""Seconds that a subscription may outlast its last watch: most end together with others, or as others begin, and
travel with these. Alone, each would cost a command, and the reading of its confirmation."""


class ResultConsumer:
    """Watches by task id over one listener. `run()` must be running in a task that somebody owns.

    An id that the backend refuses fails its own watches only.
    """

    def __init__(self, backend: ResultBackend, *, poll_interval: float = 5.0) -> None:
        self._backend = backend
        self._poll_interval = poll_interval
        self._outage = Outage(f"Result backend {backend.display_url}")
        self._watches: dict[str, AnyWatch] = {}
        self._more: dict[str, set[AnyWatch]] = {}  # of those tasks; hardly any has a second one
        self._many: dict[ManyWatch, None] = {}
        self.deadlines: Deadlines[Watch] = Deadlines()
        self._subscribed: set[str] = set()
        self._left: set[str] = set()  # not watched since then, perhaps; still subscribed
        self._leaving: asyncio.TimerHandle | None = None
        self._work = asyncio.Event()  # watches and subscriptions differ
        self._new: dict[str, bool] = {}  # not fetched yet since their first watch; whether they were just sent
        self._closed = False

    def watch(self, task_id: str, *, just_sent: bool = False) -> Watch:
        """Leaving its block, in whatever way, ends the watch; the last one of an id ends its subscription.

        `just_sent` is a hint that there cannot be a result yet.
        """
        return Watch(self, task_id, just_sent)

    def watch_many(self, ids: Sequence[str], *, window: int = WINDOW, every: bool = False) -> ManyWatch:
        """As `watch`, for very many. At most `window` of them are listened to at a time; the others are looked for
        now, as there is room, and every `poll_interval`. `every`: also states that are not final.
        """
        return ManyWatch(self, ids, window, every)

    def add(self, watch: Watch) -> None:
        """For `Watch` only, as `remove` is."""
        if self._closed:
            watch.fail(NotOpenError(CLOSED))
        self.hear(watch.task_id, watch)
        self._new[watch.task_id] = watch.just_sent
        self._work.set()

    def add_many(self, many: ManyWatch) -> None:
        """For `ManyWatch` only, as the following are."""
        if self._closed:
            many.fail(NotOpenError(CLOSED))
        self._many[many] = None
        self._work.set()

    def remove_many(self, many: ManyWatch) -> None:
        del self._many[many]

    def hear(self, task_id: str, watch: AnyWatch) -> None:
        if self._watches.setdefault(task_id, watch) is not watch:
            self._more.setdefault(task_id, set()).add(watch)

    def look(self) -> None:
        """There is something to do."""
        self._work.set()

    def remove(self, task_id: str, watch: AnyWatch) -> None:
        if (others := self._more.get(task_id)) is not None:
            if self._watches[task_id] is watch:
                self._watches[task_id] = others.pop()
            others.discard(watch)
            if not others:
                del self._more[task_id]
            return
        del self._watches[task_id]
        self._new.pop(task_id, None)
        if task_id not in self._subscribed:
            return
        self._left.add(task_id)
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().call_later(LINGER, self._leave)

    def _watches_of(self, task_id: str) -> Sequence[AnyWatch]:
        first = self._watches.get(task_id)
        if first is None:
            return ()
        return (first, *self._more[task_id]) if task_id in self._more else (first,)

    def _leave(self) -> None:
        self._leaving = None
        self._work.set()

    @property
    def watching(self) -> int:
        """How many tasks are watched now."""
        return len(self._watches)

    @property
    def subscribed(self) -> int:
        """How many tasks the backend has been asked to announce."""
        return len(self._subscribed)

    async def run(self) -> None:
        """Serve until cancelled. A lost connection is opened again for as long as it takes."""
        try:
            while True:
                try:
                    await self._listen()
                except BackendError as refused:
                    # Trying again would not help those who wait now, but perhaps those who come later.
                    self._fail(refused)
                    await anyio.sleep(REFUSED_PAUSE)
        finally:
            self._closed = True
            self._fail(NotOpenError(CLOSED))
            self.deadlines.close()
            if self._leaving is not None:
                self._leaving.cancel()

    def _fail(self, error: Exception) -> None:
        for task_id in list(self._watches):
            for watch in self._watches_of(task_id):
                watch.fail(error)
        for many in self._many:
            many.fail(error)
        self._new.clear()

    async def _listen(self) -> None:
        async for attempt in retrying(RECONNECT_POLICY, on=(BackendUnavailable,), on_retry=self._lost):
            with attempt:
                while not self._new and not self._watches and not self._many:
                    self._work.clear()
                    await self._work.wait()
                async with self._backend.listen() as listener:
                    await self._serve(listener, attempt)

    def _lost(self, error: BaseException, retries: int, delay: float) -> None:
        if self._watches or self._many:  # otherwise nobody looks whether it is back
            self._outage.down(error)

    def _established(self, attempt: Attempt) -> None:
        """Only now: a server that accepts connections, and nothing else, must not be connected to all the time."""
        attempt.reset()
        self._outage.up()

    async def _serve(self, listener: ResultListener, attempt: Attempt) -> None:
        self._new = {**dict.fromkeys(self._watches, False), **self._new}
        self._work.set()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._receive, listener)
                group.start_soon(self._follow, listener, attempt)
                group.start_soon(self._poll)
        except BaseExceptionGroup as group_of_errors:
            first = _first(group_of_errors)
            if not isinstance(first, BackendUnavailable | BackendError):
                raise
        finally:
            self._subscribed.clear()
            self._left.clear()
        raise first  # not `from` the group: its cause is the driver's error

    async def _receive(self, listener: ResultListener) -> None:
        if isinstance(listener, PromptListener):
            listener.hear_now(self._hear)
        while True:
            self._hear(await listener.receive())

    def _hear(self, changes: list[tuple[str, bytes]]) -> None:
        for task_id, document in changes:
            self._see(task_id, document)

    async def _follow(self, listener: ResultListener, attempt: Attempt) -> None:
        """Keep subscriptions equal to watches, in batches."""
        while True:
            await self._work.wait()
            self._work.clear()
            new, self._new = self._new, {}
            begun = {many: many.begin() for many in self._many}
            new |= dict.fromkeys((task_id for ids in begun.values() for task_id in ids), False)
            # A result that is there already needs no subscription. One of a task that was sent from here a moment
            # ago is hardly there: looking first would only delay the subscription.
            await self._fetch([task_id for task_id, just_sent in new.items() if not just_sent])
            for many, ids in begun.items():
                many.settle(ids)
            await self._unsubscribe(listener)
            await self._subscribe(listener, [task_id for task_id in new if self._is_open(task_id)])
            self._established(attempt)
            if any(many.wants for many in self._many):  # the next ones in another round, for others come too
                self._work.set()
                await asyncio.sleep(0)

    async def _subscribe(self, listener: ResultListener, task_ids: list[str]) -> None:
        async def subscribe(chunk: list[str]) -> None:
            chunk = [task_id for task_id in chunk if task_id in self._watches]  # still: chunks follow each other
            self._subscribed.update(chunk)
            try:
                may_be_there = await listener.subscribe(chunk)
            except BaseException:
                self._subscribed.difference_update(chunk)
                raise
            if may_be_there is not False:
                await self._fetch([task_id for task_id in chunk if self._is_open(task_id)])

        await self._fetch([task_id for task_id in task_ids if task_id in self._subscribed])
        for chunk in _chunks([task_id for task_id in task_ids if task_id not in self._subscribed]):
            await self._each(chunk, subscribe)

    async def _unsubscribe(self, listener: ResultListener) -> None:
        left, self._left = self._left, set()
        for chunk in _chunks([task_id for task_id in left & self._subscribed if task_id not in self._watches]):
            self._subscribed.difference_update(chunk)
            await listener.unsubscribe(chunk)

    def _is_open(self, task_id: str) -> bool:
        """Somebody waits, and has not seen the final state yet."""
        return not all(watch.final for watch in self._watches_of(task_id))

    async def _poll(self) -> None:
        while True:
            await anyio.sleep(self._poll_interval)
            await self._fetch(list(self._watches))
            for many in self._many:
                many.sweep()

    async def _fetch(self, task_ids: list[str]) -> None:
        async def fetch(chunk: list[str]) -> None:
            for task_id, document in zip(chunk, await self._backend.fetch(chunk), strict=True):
                if document is not None:
                    self._see(task_id, document)

        for chunk in _chunks(task_ids):
            await self._each(chunk, fetch)

    async def _each(self, task_ids: list[str], operation: Callable[[list[str]], Awaitable[None]]) -> None:
        """For all together; where the server refuses, for ever fewer, so that only the waiters of a bad id fail."""
        try:
            await operation(task_ids)
        except BackendError as refused:
            if len(task_ids) == 1:
                for watch in self._watches_of(task_ids[0]):
                    watch.fail(refused)
                return
            half = len(task_ids) // 2
            await self._each(task_ids[:half], operation)
            await self._each(task_ids[half:], operation)

    def _see(self, task_id: str, document: bytes) -> None:
        if watches := self._watches_of(task_id):
            final = status_of(document) in states.FINAL
            for watch in watches:
                watch.see(task_id, document, final=final)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _chunks(items: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
