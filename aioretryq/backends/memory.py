"""The result backend for one process."""

from __future__ import annotations

import contextlib
import heapq
import math
import threading
import time
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from aioretryq.backends import chord_rules as rules
from aioretryq.backends.memory_chords import MemoryChords
from aioretryq.drivers.wakeup import Wakeup
from aioretryq.errors import BackendUnavailable, NotOpenError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType

    from aioretryq.config import Settings
    from aioretryq.message import ChordAddition, ChordClaim, ChordOpening, ChordPart, OverdueChord, StoredResult


_GROUP = "\0group:"  # before the ids of groups: no task's begins like that


class _Kept(Struct, frozen=True):
    state: str
    document: bytes
    expires: float


class MemoryListener:
    """Gets what is stored while it is subscribed; only the last document of a task is of interest."""

    def __init__(self, lock: threading.Lock, name: str) -> None:
        self._lock = lock
        self._name = name
        self._task_ids: set[str] = set()
        self._changes: dict[str, bytes] = {}
        self._wakeup = Wakeup()
        self._closed = False

    async def subscribe(self, task_ids: Sequence[str]) -> None:
        with self._lock:
            self._task_ids.update(task_ids)

    async def unsubscribe(self, task_ids: Sequence[str]) -> None:
        with self._lock:
            self._task_ids.difference_update(task_ids)
            for task_id in task_ids:
                self._changes.pop(task_id, None)

    async def receive(self) -> list[tuple[str, bytes]]:
        while True:
            with self._lock:
                self._wakeup.clear()
                if self._changes:
                    changes, self._changes = self._changes, {}
                    return list(changes.items())
                if self._closed:
                    raise BackendUnavailable(f"The result backend {self._name} was closed; open it again.")
            await self._wakeup.wait()

    def tell(self, task_id: str, document: bytes) -> None:
        if task_id in self._task_ids:
            self._changes[task_id] = document
            self._wakeup.set()

    def close(self) -> None:
        self._closed = True
        self._wakeup.set()


class MemoryResults:
    """What the backends of one name share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.listeners: set[MemoryListener] = set()
        self._kept: dict[str, _Kept] = {}
        self._expiring: list[tuple[float, str]] = []
        self.chords = MemoryChords()

    def store(self, result: StoredResult, now: float) -> bool:
        kept = self._kept.get(result.task_id)
        if kept is not None and kept.expires > now and result.yields_to(kept.state):
            return False
        expires = math.inf if result.ttl is None else now + result.ttl
        self._kept[result.task_id] = _Kept(result.state, result.document, expires)
        if result.ttl is not None:
            heapq.heappush(self._expiring, (expires, result.task_id))
        for listener in self.listeners:
            listener.tell(result.task_id, result.document)
        return True

    def fetch(self, task_id: str, now: float) -> bytes | None:
        kept = self._kept.get(task_id)
        return kept.document if kept is not None and kept.expires > now else None

    def forget(self, task_id: str) -> None:
        self._kept.pop(task_id, None)

    def save_group(self, group_id: str, document: bytes, expires: float) -> None:
        key = _GROUP + group_id
        self._kept[key] = _Kept("", document, expires)
        if expires < math.inf:
            heapq.heappush(self._expiring, (expires, key))

    def expire(self, now: float) -> int:
        count = 0
        while self._expiring and self._expiring[0][0] <= now:
            expires, task_id = heapq.heappop(self._expiring)
            kept = self._kept.get(task_id)
            # It may have been stored anew since, with more time.
            if kept is not None and kept.expires == expires:
                del self._kept[task_id]
                count += 1
        return count


_stores: dict[str, MemoryResults] = {}


class MemoryBackend:
    """`memory://` keeps its results to itself; all `memory://<name>` of a process share theirs."""

    def __init__(self, name: str = "", *, clock: Callable[[], float] = time.time) -> None:
        self.display_url = f"memory://{name}"
        self._store = _stores.setdefault(name, MemoryResults()) if name else MemoryResults()
        self._clock = clock
        self._own_listeners: set[MemoryListener] = set()
        self._open = False

    @classmethod
    def from_url(cls, url: str, settings: Settings) -> Self:
        return cls(url.partition("://")[2].strip("/"))

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._open = False
        for listener in self._own_listeners:
            listener.close()

    async def store(self, results: Sequence[StoredResult]) -> list[bool]:
        store, now = self._checked(), self._clock()
        with store.lock:
            store.expire(now)  # nobody has to call cleanup() for the memory to stay bounded
            return [store.store(result, now) for result in results]

    async def fetch(self, task_ids: Sequence[str]) -> list[bytes | None]:
        store, now = self._checked(), self._clock()
        with store.lock:
            return [store.fetch(task_id, now) for task_id in task_ids]

    async def forget(self, task_ids: Sequence[str]) -> None:
        store = self._checked()
        with store.lock:
            for task_id in task_ids:
                store.forget(task_id)

    async def save_group(self, group_id: str, document: bytes, ttl: float | None) -> None:
        store, now = self._checked(), self._clock()
        with store.lock:
            store.expire(now)
            store.save_group(group_id, document, math.inf if ttl is None else now + ttl)

    async def restore_group(self, group_id: str) -> bytes | None:
        return (await self.fetch([_GROUP + group_id]))[0]

    async def delete_group(self, group_id: str) -> None:
        await self.forget([_GROUP + group_id])

    async def open_chords(self, openings: Sequence[ChordOpening]) -> None:
        store, now = self._checked(), self._clock()
        with store.lock:
            for opening in openings:
                store.chords.open(opening, now)

    async def amend_chords(self, openings: Sequence[ChordOpening]) -> list[bool]:
        store, now = self._checked(), self._clock()
        with store.lock:
            return [store.chords.amend(opening, now) for opening in openings]

    async def add_parts(self, additions: Sequence[ChordAddition]) -> None:
        store, now = self._checked(), self._clock()
        with store.lock:
            for addition in additions:
                store.chords.add(addition, now)

    async def overdue_chords(self, patience: float, limit: int) -> list[OverdueChord]:
        store, now = self._checked(), self._clock()
        with store.lock:
            return store.chords.overdue(patience, limit, now)

    async def count_parts(self, parts: Sequence[ChordPart]) -> list[bool]:
        store, now = self._checked(), self._clock()
        with store.lock:
            return [store.chords.count(part, now) for part in parts]

    async def chord_parts(self, group_id: str, limit: int | None = None) -> list[bytes]:
        store = self._checked()
        with store.lock:
            parts = store.chords.parts(group_id, self._clock())
        rules.check_size(group_id, sum(map(len, parts)), limit)
        return parts

    async def hold_chords(self, claims: Sequence[ChordClaim], hold: float) -> list[bool | None]:
        store, now = self._checked(), self._clock()
        with store.lock:
            return [store.chords.hold(claim, now, now + hold) for claim in claims]

    async def close_chords(self, claims: Sequence[ChordClaim]) -> None:
        store, now = self._checked(), self._clock()
        with store.lock:
            for claim in claims:
                store.chords.close(claim, now)

    async def cleanup(self) -> int:
        store = self._checked()
        with store.lock:
            return store.expire(self._clock()) + store.chords.expire(self._clock())

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[MemoryListener]:
        store = self._checked()
        listener = MemoryListener(store.lock, self.display_url)
        self._own_listeners.add(listener)
        with store.lock:
            store.listeners.add(listener)
        try:
            yield listener
        finally:
            self._own_listeners.discard(listener)
            with store.lock:
                store.listeners.discard(listener)

    def _checked(self) -> MemoryResults:
        if not self._open:
            raise NotOpenError(f"The result backend {self.display_url} is not open; use it inside `async with`.")
        return self._store
