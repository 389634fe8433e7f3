"""Waiting for results: one listener for a whole process, however many wait.

Nobody waits: nothing is subscribed. Somebody waits: fetch, subscribe, and fetch again once the subscription
is confirmed, so that a result stored in between is not missed. The connection was lost: everything awaited is
subscribed and fetched again. And because announcements can be lost without a trace, everything awaited is
also fetched every `poll_interval` seconds.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from aioretryq import states
from aioretryq.errors import BackendError, BackendUnavailable, NotOpenError
from aioretryq.outage import Outage
from aioretryq.protocol.result import status_of
from aioretryq.retry import RECONNECT_POLICY, retrying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from aioretryq.backends.base import ResultBackend, ResultListener
    from aioretryq.retry import Attempt

CLOSED = "The queue was closed while this result was awaited; open it again with `async with queue:`."

REFUSED_PAUSE = 0.5
"""Seconds before a backend that refused is asked again."""

CHUNK = 1000
"""Ids in one fetch or subscription."""


class Watch:
    """What one waiter sees of one task: the newest document, and an event when it changes."""

    __slots__ = ("changed", "document", "error")

    def __init__(self) -> None:
        self.document: bytes | None = None
        self.error: Exception | None = None
        self.changed = asyncio.Event()

    def see(self, document: bytes) -> None:
        if document != self.document:
            self.document = document
            self.changed.set()

    async def next(self) -> bytes:
        """Wait for a document that was not returned yet. Intermediate ones may be skipped.

        NotOpenError when the queue is closed meanwhile.
        """
        await self.changed.wait()
        self.changed.clear()
        if self.document is None or self.error is not None:
            raise self.error or AssertionError("a change without a document")
        return self.document

    def fail(self, error: Exception) -> None:
        self.error = error
        self.changed.set()


class ResultConsumer:
    """Watches by task id over one listener. `run()` must be running in a task that somebody owns.

    An id that the backend refuses fails its own watches only.
    """

    def __init__(self, backend: ResultBackend, *, poll_interval: float = 5.0) -> None:
        self._backend = backend
        self._poll_interval = poll_interval
        self._outage = Outage(f"Result backend {backend.display_url}")
        self._watches: dict[str, set[Watch]] = {}
        self._subscribed: set[str] = set()
        self._work = asyncio.Event()  # watches and subscriptions differ
        self._new: dict[str, bool] = {}  # not fetched yet since their first watch; whether they were just sent
        self._closed = False

    @contextmanager
    def watch(self, task_id: str, *, just_sent: bool = False) -> Iterator[Watch]:
        """Leaving the block, in whatever way, ends the watch; the last one of an id ends its subscription.

        `just_sent` is a hint that there cannot be a result yet.
        """
        watch = Watch()
        if self._closed:
            watch.fail(NotOpenError(CLOSED))
        watches = self._watches.setdefault(task_id, set())
        watches.add(watch)
        self._new[task_id] = just_sent
        self._work.set()
        try:
            yield watch
        finally:
            watches.discard(watch)
            if not watches:
                del self._watches[task_id]
                self._new.pop(task_id, None)
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

    def _fail(self, error: Exception) -> None:
        for watch in [watch for watches in self._watches.values() for watch in watches]:
            watch.fail(error)
        self._new.clear()

    async def _listen(self) -> None:
        async for attempt in retrying(RECONNECT_POLICY, on=(BackendUnavailable,), on_retry=self._lost):
            with attempt:
                while not self._new and not self._watches:
                    self._work.clear()
                    await self._work.wait()
                async with self._backend.listen() as listener:
                    await self._serve(listener, attempt)

    def _lost(self, error: BaseException, retries: int, delay: float) -> None:
        if self._watches:  # otherwise nobody looks whether it is back
            self._outage.down(error)

    def _established(self, attempt: Attempt) -> None:
        """Only now: a server that accepts connections, and nothing else, must not be connected to all the time."""
        attempt.reset()
        self._outage.up()

    async def _serve(self, listener: ResultListener, attempt: Attempt) -> None:
        self._new.update(dict.fromkeys(self._watches, False))
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
        raise first  # not `from` the group: its cause is the driver's error

    async def _receive(self, listener: ResultListener) -> None:
        while True:
            for task_id, document in await listener.receive():
                self._see(task_id, document)

    async def _follow(self, listener: ResultListener, attempt: Attempt) -> None:
        """Keep subscriptions equal to watches, in batches."""
        while True:
            await self._work.wait()
            self._work.clear()
            new, self._new = self._new, {}
            # A result that is there already needs no subscription. One of a task that was sent from here a moment
            # ago is hardly there: looking first would only delay the subscription.
            await self._fetch([task_id for task_id, just_sent in new.items() if not just_sent])
            unknown = [task_id for task_id in new if self._is_open(task_id)]
            await self._subscribe(listener, unknown)
            await self._fetch([task_id for task_id in unknown if self._is_open(task_id)])
            await self._unsubscribe(listener)
            self._established(attempt)

    async def _subscribe(self, listener: ResultListener, task_ids: list[str]) -> None:
        async def subscribe(chunk: list[str]) -> None:
            self._subscribed.update(chunk)
            try:
                await listener.subscribe(chunk)
            except BaseException:
                self._subscribed.difference_update(chunk)
                raise

        for chunk in _chunks([task_id for task_id in task_ids if task_id not in self._subscribed]):
            await self._each(chunk, subscribe)

    async def _unsubscribe(self, listener: ResultListener) -> None:
        for chunk in _chunks([task_id for task_id in self._subscribed if task_id not in self._watches]):
            self._subscribed.difference_update(chunk)
            await listener.unsubscribe(chunk)

    def _is_open(self, task_id: str) -> bool:
        """Somebody waits, and has not seen the final state yet."""
        return any(
            watch.document is None or status_of(watch.document) not in states.FINAL
            for watch in self._watches.get(task_id, ())
        )

    async def _poll(self) -> None:
        while True:
            await anyio.sleep(self._poll_interval)
            await self._fetch(list(self._watches))

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
                for watch in self._watches.get(task_ids[0], ()):
                    watch.fail(refused)
                return
            half = len(task_ids) // 2
            await self._each(task_ids[:half], operation)
            await self._each(task_ids[half:], operation)

    def _see(self, task_id: str, document: bytes) -> None:
        for watch in self._watches.get(task_id, ()):
            # An announcement may overtake a fetch that was answered earlier: final stays final.
            if watch.document is None or status_of(watch.document) not in states.FINAL:
                watch.see(document)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _chunks(items: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
