"""What those who wait see: of one task (`Watch`), or of very many (`ManyWatch`). See `consumer.py`."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from aioretryq.backends.consumer import ResultConsumer

CHUNK = 1000
"""Ids in one fetch or subscription."""

WINDOW = 10_000
"""Tasks of one `ManyWatch` that are listened to at a time."""

SWEPT = 50_000
"""Of the others, those that are looked for in each poll interval."""

AHEAD = 2000
"""Documents that wait for their reader before no more is looked for."""

_UNHEARD, _HEARD, _DONE = range(3)


class Watch:
    """What one waiter sees of one task inside the `with` block: the newest document, and when it changes."""

    # One future while somebody waits, not an Event: nearly every watch waits once.
    __slots__ = ("_changed", "_consumer", "_error", "_limit", "_waiter", "document", "final", "just_sent", "task_id")

    def __init__(self, consumer: ResultConsumer, task_id: str, just_sent: bool) -> None:
        self.task_id = task_id
        self.just_sent = just_sent
        self.document: bytes | None = None
        self.final = False
        self._consumer = consumer
        self._error: Exception | None = None
        self._changed = False
        self._limit: float | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        self._consumer.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._limit is not None:
            self._consumer.deadlines.drop(self, self._limit)
        self._consumer.remove(self.task_id, self)

    def see(self, task_id: str, document: bytes, *, final: bool) -> None:
        # An announcement may overtake a fetch that was answered earlier: final stays final.
        if not self.final and document != self.document:
            self.document, self.final = document, final
            self._change()

    async def next(self) -> bytes:
        """Wait for a document that was not returned yet. Intermediate ones may be skipped.

        NotOpenError when the queue is closed meanwhile.
        """
        while not self._changed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.document is None or self._error is not None:
            raise self._error or AssertionError("a change without a document")
        self._changed = False
        return self.document

    def fail(self, error: Exception) -> None:
        self._error = error
        self._change()

    def fail_after(self, seconds: float) -> None:
        """With TimeoutError. For a cancel scope around the block costs more than the whole watch."""
        self._limit = self._consumer.deadlines.watch(self, seconds)

    def _change(self) -> None:
        self._changed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class ManyWatch:
    """What one waiter sees of very many tasks inside the `with` block: their final documents, as they come.

    Takes a byte for each task, and what `ids` takes; only of those that are listened to there is more.
    """

    __slots__ = (
        *("_consumer", "_cursor", "_error", "_every", "_found", "_heard", "_ids", "_quota", "_states", "_twins"),
        *("_waiter", "_window", "left"),
    )

    final = False
    """As a `Watch` has it: of those that it listens to, none is."""

    def __init__(self, consumer: ResultConsumer, ids: Sequence[str], window: int, every: bool) -> None:
        self.left = len(ids)
        self._consumer = consumer
        self._ids = ids
        self._window = window
        self._every = every
        self._states = bytearray(len(ids))
        self._heard: dict[str, tuple[int, bytes | None]] = {}  # its place, and what was seen last
        self._twins: dict[str, list[int]] = {}  # further places of those
        self._found: deque[tuple[int, str, bytes]] = deque()
        self._cursor = 0
        self._quota = len(ids)  # so many are to be looked for, whether there is room to listen to them or not
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        self._consumer.add_many(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._consumer.remove_many(self)
        heard, self._heard = self._heard, {}
        self._twins.clear()
        for task_id in heard:
            self._consumer.remove(task_id, self)

    async def next(self) -> list[tuple[int, str, bytes]]:
        """Wait for documents that were not returned yet: (place among the ids, id, document). None at all: all
        are done.

        NotOpenError when the queue is closed meanwhile, BackendError where the backend refuses one of the ids.
        """
        while not self._found and self.left:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        found = [self._found.popleft() for _ in range(min(CHUNK, len(self._found)))]
        if self.wants:
            self._consumer.look()
        return found

    # -- for the consumer

    @property
    def wants(self) -> bool:
        """Whether `begin` would give something."""
        return self._wanted() > 0

    def begin(self) -> list[str]:
        """Some that are to be looked for now; they are listened to from here on, until `settle`."""
        begun = []
        places = self._next(self._wanted())
        self._quota = max(0, self._quota - len(places))
        for place, task_id in zip(places, self._named(places), strict=True):
            if task_id in self._heard:
                self._twins.setdefault(task_id, []).append(place)
                continue
            self._heard[task_id] = (place, None)
            self._consumer.hear(task_id, self)
            begun.append(task_id)
        return begun

    def settle(self, begun: Sequence[str]) -> None:
        """They have been looked for: those that there is no room for wait for the next time."""
        over = len(self._heard) - self._window
        for task_id in reversed(begun):
            if over <= 0:
                return
            if task_id in self._heard:
                self._leave(task_id, _UNHEARD)
                over -= 1

    def sweep(self) -> None:
        """Look for those that are not listened to."""
        self._quota = min(SWEPT, self._unheard())
        self._consumer.look()

    def see(self, task_id: str, document: bytes, *, final: bool) -> None:
        place, before = self._heard.get(task_id, (0, document))
        if final and task_id in self._heard:
            self._found.extend((each, task_id, document) for each in self._leave(task_id, _DONE))
        elif self._every and document != before:
            self._heard[task_id] = (place, document)
            self._found.append((place, task_id, document))
        else:
            return
        self._wake()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._wake()

    def _leave(self, task_id: str, state: int) -> list[int]:
        places = [self._heard.pop(task_id)[0], *self._twins.pop(task_id, ())]
        for place in places:
            self._states[place] = state
        if state == _DONE:
            self.left -= len(places)
        self._consumer.remove(task_id, self)
        return places

    def _next(self, count: int) -> list[int]:
        """Places that nobody listens to, from the cursor on; they count as listened to."""
        places = []
        for _ in range(count):
            place = self._states.find(_UNHEARD, self._cursor)
            if place < 0:
                place = self._states.find(_UNHEARD)
            self._cursor = place + 1
            self._states[place] = _HEARD
            places.append(place)
        return places

    def _named(self, places: list[int]) -> Sequence[str]:
        if places and places[-1] - places[0] == len(places) - 1:  # nearly always; and many at once are told faster
            return self._ids[places[0] : places[-1] + 1]
        return [self._ids[place] for place in places]

    def _wanted(self) -> int:
        if len(self._found) >= AHEAD:
            return 0
        unheard, room = self._unheard(), self._window - len(self._heard)
        some = min(CHUNK, unheard)
        return max(min(some, self._quota), some if room >= some else 0)

    def _unheard(self) -> int:
        return self.left - len(self._heard) - sum(map(len, self._twins.values()))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
