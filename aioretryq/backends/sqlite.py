"""The result backend in an SQLite file, which may be the broker's."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Self

from aioretryq.backends import sqlite_chords, sqlite_watch
from aioretryq.backends import sqlite_results as store
from aioretryq.drivers import doorbell
from aioretryq.drivers.sqlite import Database, path_of
from aioretryq.drivers.wakeup import Wakeup
from aioretryq.errors import BackendError, BackendUnavailable, NotOpenError, UnavailableError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType

    from aioretryq.config import Settings
    from aioretryq.message import ChordAddition, ChordClaim, ChordOpening, ChordPart, OverdueChord, StoredResult

CLEANED_AT_ONCE = 5000
"""Rows per transaction of a clean-up, so that it does not hold up the workers."""
GROUP = "\0group:"
"""Before the ids of groups, which are kept among the results: no task's id begins like that."""


class SQLiteListener:
    """Fetches what it is told has changed; where it may have been told too little, all it is subscribed to."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._bell = doorbell.Doorbell(database, self._heard)
        self._wakeup = Wakeup()
        self._changed: set[str] = set()
        self._look_at_all = False
        self._closed = False
        # By task, a hash of the document told last: looking at everything finds what was told already, too.
        self._told: dict[str, int | None] = {}

    async def open(self) -> None:
        await self._bell.open()
        await self._bell.announce([store.TOPIC])

    async def subscribe(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            self._told.setdefault(task_id, None)
        await self._announce()

    async def unsubscribe(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            self._told.pop(task_id, None)
            self._changed.discard(task_id)

    async def receive(self) -> list[tuple[str, bytes]]:
        while True:
            self._wakeup.clear()
            if self._closed:
                raise BackendUnavailable(f"The SQLite file {self._database.path!r} was closed; open it again.")
            try:
                await self._announce()
                if changes := await self._collect():
                    return changes
            except NotOpenError as error:
                raise BackendUnavailable(str(error)) from error
            await self._wakeup.wait(self._bell.interval)

    def close(self) -> None:
        self._closed = True
        self._wakeup.set()

    async def aclose(self) -> None:
        self.close()
        # An entry that stays in the table is stale soon.
        with contextlib.suppress(UnavailableError):
            await self._bell.aclose()

    async def _announce(self) -> None:
        if await self._bell.announce([store.TOPIC]):
            self._look_at_all = True

    async def _collect(self) -> list[tuple[str, bytes]]:
        changed, look_at_all = self._changed, self._look_at_all
        if not changed and not look_at_all:
            return []
        self._changed, self._look_at_all = set(), False
        wanted, now = list(self._told if look_at_all else changed), self._clock()
        try:
            found = await self._database.read(lambda connection: dict(store.fetch(connection, wanted, now)))
        except BaseException:
            # Cancelled, as a rule: the next receive() has to tell of them.
            self._changed |= changed
            self._look_at_all |= look_at_all
            raise
        return [(task_id, document) for task_id, document in found.items() if self._is_news(task_id, document)]

    def _is_news(self, task_id: str, document: bytes) -> bool:
        mark = hash(document)
        if task_id not in self._told or self._told[task_id] == mark:
            return False
        self._told[task_id] = mark
        return True

    def _heard(self, datagram: bytes) -> None:
        if datagram == doorbell.ANY:
            self._look_at_all = True
        else:
            self._changed.update(task_id for task_id in doorbell.unpack(datagram) if task_id in self._told)
        if self._changed or self._look_at_all:
            self._wakeup.set()


class SQLiteBackend:
    """`sqlite:///relative/path` or `sqlite:////absolute/path`; the file is created where there is none."""

    def __init__(self, path: str, *, clock: Callable[[], float] = time.time) -> None:
        self.display_url = f"sqlite:///{path}"
        self._database = Database(path, unavailable=BackendUnavailable, refused=BackendError)
        self._clock = clock
        self._ringer = doorbell.Ringer()
        self._listeners: set[SQLiteListener] = set()

    @property
    def path(self) -> str:
        """The file, as an absolute path."""
        return self._database.path

    @classmethod
    def from_url(cls, url: str, settings: Settings) -> Self:
        return cls(path_of(url))

    async def __aenter__(self) -> Self:
        await self._database.open()
        self._ringer.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            for listener in tuple(self._listeners):
                await listener.aclose()
        finally:
            await self._database.aclose()
            self._ringer.close()

    async def store(self, results: Sequence[StoredResult]) -> list[bool]:
        if not results:
            return []
        now = self._clock()
        _, stored = await self._database.write(
            lambda connection: _store(connection, results, now),
            lambda outcome: store.announce(self._ringer, outcome[0], results, outcome[1]),
        )
        return stored

    async def fetch(self, task_ids: Sequence[str]) -> list[bytes | None]:
        if not task_ids:
            return []
        now = self._clock()
        found = await self._database.read(lambda connection: dict(store.fetch(connection, task_ids, now)))
        return [found.get(task_id) for task_id in task_ids]

    async def forget(self, task_ids: Sequence[str]) -> None:
        if task_ids:
            rows = [(task_id,) for task_id in task_ids]
            await self._database.write(lambda c: c.executemany("DELETE FROM results WHERE task_id = ?", rows))

    async def save_group(self, group_id: str, document: bytes, ttl: float | None) -> None:
        row = (GROUP + group_id, "", None if ttl is None else self._clock() + ttl, document)
        await self._database.write(lambda c: c.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", row))

    async def restore_group(self, group_id: str) -> bytes | None:
        return (await self.fetch([GROUP + group_id]))[0]

    async def delete_group(self, group_id: str) -> None:
        await self.forget([GROUP + group_id])

    async def open_chords(self, openings: Sequence[ChordOpening]) -> None:
        if openings:
            now = self._clock()
            await self._database.write(lambda connection: sqlite_watch.open_chords(connection, openings, now))

    async def amend_chords(self, openings: Sequence[ChordOpening]) -> list[bool]:
        if not openings:
            return []
        now = self._clock()
        return await self._database.write(lambda connection: sqlite_watch.amend(connection, openings, now))

    async def add_parts(self, additions: Sequence[ChordAddition]) -> None:
        if additions:
            now = self._clock()
            await self._database.write(lambda connection: sqlite_chords.add(connection, additions, now))

    async def overdue_chords(self, patience: float, limit: int) -> list[OverdueChord]:
        now = self._clock()
        found: list[OverdueChord] = []
        more = await self._database.read(lambda connection: sqlite_watch.due(connection, now))
        while more and not found:  # nearly never: nobody has to be kept from writing
            found, more = await self._database.write(
                lambda connection: sqlite_watch.overdue(connection, patience, limit, now)
            )
        return found

    async def count_parts(self, parts: Sequence[ChordPart]) -> list[bool]:
        if not parts:
            return []
        now = self._clock()
        return await self._database.write(lambda connection: [_count(connection, part, now) for part in parts])

    async def chord_parts(self, group_id: str, limit: int | None = None) -> list[bytes]:
        return await self._database.read(lambda connection: sqlite_chords.parts(connection, group_id, limit))

    async def hold_chords(self, claims: Sequence[ChordClaim], hold: float) -> list[bool | None]:
        now = self._clock()
        return await self._database.write(
            lambda connection: [sqlite_chords.hold(connection, claim, now, now + hold) for claim in claims]
        )

    async def close_chords(self, claims: Sequence[ChordClaim]) -> None:
        if claims:
            now = self._clock()
            await self._database.write(lambda connection: sqlite_chords.close(connection, claims, now))

    async def cleanup(self) -> int:
        now, total = self._clock(), 0
        while True:
            count = await self._database.write(lambda connection: _clean(connection, now))
            total += count
            if count < CLEANED_AT_ONCE:
                return total

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[SQLiteListener]:
        listener = SQLiteListener(self._database, self._clock)
        self._listeners.add(listener)
        try:
            await listener.open()
            yield listener
        finally:
            self._listeners.discard(listener)
            await listener.aclose()


def _store(
    connection: sqlite3.Connection, results: Sequence[StoredResult], now: float
) -> tuple[set[int], list[bool]]:
    stored = store.store(connection, results, now)
    return store.listeners(connection) if any(stored) else set(), stored


def _count(connection: sqlite3.Connection, part: ChordPart, now: float) -> bool:
    mine = sqlite_chords.count(connection, part, now)
    if part.body:
        sqlite_watch.adopt(connection, part, now)
    return mine


def _clean(connection: sqlite3.Connection, now: float) -> int:
    sqlite_chords.clean(connection, now)
    return store.clean(connection, now, CLEANED_AT_ONCE)
