"""One SQLite file, used from asyncio: a connection in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import time
from typing import TYPE_CHECKING, TypeVar

from aioretryq.drivers.call_thread import CallThread
from aioretryq.drivers.sqlite_layout import APPLICATION_ID, SCHEMA_VERSION, statements
from aioretryq.errors import ConfigError, NotOpenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aioretryq.errors import AioretryqError, UnavailableError

T = TypeVar("T")
R = TypeVar("R")

LONGEST_LIST = 512
"""Values of one `IN (...)`: SQLite builds allow as few as 999 parameters."""
_MARKS = {length: ", ".join("?" * length) for length in (1 << n for n in range(LONGEST_LIST.bit_length()))}

BUSY_SECONDS = 5.0
"""How long to wait for another process's transaction. Ours take milliseconds."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.0005, 0.01
"""Seconds between looks whether it is over, at most: the first, and after many."""

_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process has held its lock for too long; look for a program "
    "with a transaction open on it",
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: "it cannot be written to; give this user write permission for the file and its folder",
    sqlite3.SQLITE_PERM: "access is denied; give this user write permission for the file and its folder",
    sqlite3.SQLITE_IOERR: "the disk failed; look at the system's log, and do not keep the file on a network drive",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that the folder exists and is writable",
    sqlite3.SQLITE_PROTOCOL: "too many processes are opening it at once; try again",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database; name another file",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore a copy, or move it away to start with an empty one",
}
_ADVICE[sqlite3.SQLITE_LOCKED] = _ADVICE[sqlite3.SQLITE_BUSY]
_HOPELESS = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_WRONG_AT_OPEN = _HOPELESS | {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN}


def path_of(url: str) -> str:
    """The file that `sqlite:///relative` or `sqlite:////absolute` names."""
    rest = url.partition("://")[2]
    path = rest.removeprefix("/")
    if not path:
        raise ConfigError(f"{url!r} names no file. Write sqlite:///name.sqlite3, or memory:// to keep nothing.")
    if not rest.startswith("/"):
        raise ConfigError(f"{url!r} lacks a slash: sqlite:///{rest} is relative, sqlite:////{rest} absolute.")
    if path == ":memory:":
        raise ConfigError(f"{url!r} could not be shared between connections. Use memory:// instead.")
    if "?" in path:
        raise ConfigError(f"{url!r}: options after '?' are not supported; name the file only.")
    return path


def in_lists(values: Sequence[T]) -> Iterator[tuple[str, Sequence[T]]]:
    """Marks and values for `IN (...)`: few enough at once, and always 1, 2, 4, ... of them (the last is repeated).

    Each length is a statement of its own, which SQLite has to compile: so there are only ten.
    """
    for start in range(0, len(values), LONGEST_LIST):
        chunk = values[start : start + LONGEST_LIST]
        length = 1 << (len(chunk) - 1).bit_length()
        yield _MARKS[length], [*chunk, *[chunk[-1]] * (length - len(chunk))]


class Database:
    """A connection that lives in one thread; every call is one transaction of plain, synchronous functions.

    Cancelling a call does not interrupt the thread: the transaction ends as if nobody had been waiting.
    A file that was deleted or replaced meanwhile is opened anew, as an empty one.
    """

    def __init__(
        self,
        path: str,
        *,
        unavailable: type[UnavailableError],
        refused: type[AioretryqError],
        busy: float = BUSY_SECONDS,
    ) -> None:
        self.path = os.path.abspath(path)  # a later chdir must not change which file is meant
        self._unavailable = unavailable
        self._refused = refused
        self._busy = busy
        self._thread: CallThread | None = None
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)

    async def open(self) -> None:
        """Open the file, creating it where there is none. ConfigError says what is wrong with it."""
        thread = CallThread("aioretryq-sqlite")
        try:
            await thread.submit(self._open)
        except BaseException:
            thread.submit(self._close)
            thread.close()
            raise
        self._thread = thread

    async def aclose(self) -> None:
        """Wait for what is under way, then close."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        closing = thread.submit(self._close)
        thread.close()
        await asyncio.shield(closing)

    async def write(self, work: Callable[[sqlite3.Connection], R], then: Callable[[R], object] | None = None) -> R:
        """Run `work` in a transaction that excludes other writers.

        `then` gets its result right after the commit, in the thread, so that it happens even when the caller
        is cancelled meanwhile.
        """
        return await self._running().submit(lambda: self._write(work, then))

    async def read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Run `work`, which only reads; it neither waits for writers nor holds them up."""
        return await self._running().submit(lambda: self._read(work))

    def _running(self) -> CallThread:
        if self._thread is None:
            raise NotOpenError(f"The SQLite file {self.path} is not open; use the broker inside `async with`.")
        return self._thread

    # -- in the thread

    def _write(self, work: Callable[[sqlite3.Connection], R], then: Callable[[R], object] | None) -> R:
        try:
            connection = self._current()
            self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                # SQLite has already rolled back after some errors.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._mapped(error) from error
        if then is not None:
            then(result)
        return result

    def _read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        try:
            return self._patiently(lambda: work(self._current()))
        except sqlite3.Error as error:
            raise self._mapped(error) from error

    def _patiently(self, call: Callable[[], R]) -> R:
        """Again while others have the file locked: SQLite's own waiting sleeps for 1, 2, 5, 10, ... milliseconds,
        and a transaction of ours takes one or two."""
        deadline, pause = time.monotonic() + self._busy, SHORTEST_PAUSE
        while True:
            try:
                return call()
            except sqlite3.Error as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0, pause))
            pause = min(1.5 * pause, LONGEST_PAUSE)

    def _current(self) -> sqlite3.Connection:
        # SQLite would go on with the deleted file, and this process would be deaf to all others.
        if self._connection is None or self._on_disk() != self._identity:
            self._close()
            try:
                self._open()
            except ConfigError as error:  # it was right once: a folder that is gone may come back
                raise self._unavailable(str(error)) from error
        assert self._connection is not None
        return self._connection

    def _on_disk(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)
        except OSError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _open(self) -> None:
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            raise ConfigError(f"There is no folder {folder!r} for the SQLite file {self.path!r}; create it.")
        deadline = time.monotonic() + self._busy
        while self._connection is None:
            connection = None
            try:
                connection = sqlite3.connect(self.path, timeout=self._busy, isolation_level=None)
                self._prepare(connection)
                self._connection = connection
            except sqlite3.Error as error:
                # Switching to WAL does not honour the timeout when several processes start at once.
                if _code(error) not in _LOCKED or time.monotonic() > deadline:
                    raise self._mapped(error, opening=True) from error
                time.sleep(random.uniform(0.005, 0.03))
            finally:
                if connection is not None and self._connection is None:
                    connection.close()
        self._identity = self._on_disk()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")  # of several processes that start at once, one creates the tables
        version = self._checked_version(connection)
        if version < SCHEMA_VERSION:
            for statement in statements(version):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA busy_timeout = 0")  # from now on `_patiently` waits

    def _checked_version(self, connection: sqlite3.Connection) -> int:
        """The layout of the file, 0 for an empty one; ConfigError when the file is not for us."""
        ((owner,),) = connection.execute("PRAGMA application_id").fetchall()
        ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        version = _version(connection)
        if owner != APPLICATION_ID and (version or tables):
            raise ConfigError(f"The SQLite file {self.path!r} belongs to another program; name another file.")
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"The SQLite file {self.path!r} was written by a newer aioretryq (layout {version}, known here "
                f"{SCHEMA_VERSION}); upgrade this one, or name another file."
            )
        return version if tables else 0

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _mapped(self, error: sqlite3.Error, *, opening: bool = False) -> AioretryqError:
        code = _code(error)
        advice = _ADVICE.get(code) or self._why_refused()
        text = f"SQLite file {self.path!r}: {advice} ({error})."
        if opening and code in _WRONG_AT_OPEN:
            return ConfigError(text)
        if code not in _ADVICE or code in _HOPELESS:
            return self._refused(text)
        failure = self._unavailable(text)
        failure.maybe_done = code == sqlite3.SQLITE_IOERR  # all others leave the transaction rolled back
        return failure

    def _why_refused(self) -> str:
        with contextlib.suppress(sqlite3.Error):
            if self._connection is not None and _version(self._connection) > SCHEMA_VERSION:
                return "a newer aioretryq has upgraded its layout meanwhile; upgrade this one and start it again"
        return "the operation was refused"


def _version(connection: sqlite3.Connection) -> int:
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    return int(version)


def _code(error: sqlite3.Error) -> int:
    # Extended codes keep the primary one in their lowest byte; errors of the Python module itself have none.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
