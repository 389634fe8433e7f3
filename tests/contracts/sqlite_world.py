"""Brokers and backends on one new SQLite file, with a clock that a test moves."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from aioretryq.backends.sqlite import SQLiteBackend
from aioretryq.brokers.sqlite import SQLiteBroker
from contracts.broker_world import LEASE
from contracts.shifted_clock import ShiftedClock

LAYOUT_1 = Path(__file__).with_name("sqlite_layout_1.sql")


def make_layout_1(path: str | Path) -> None:
    """A file that an earlier version has left behind, with two messages waiting, one parked and one claimed."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(LAYOUT_1.read_text())


class SQLiteWorld(ShiftedClock):
    def __init__(self, stack: contextlib.AsyncExitStack, folder: Path) -> None:
        super().__init__()
        self._stack = stack
        self.path = str(folder / "queue.sqlite3")

    async def broker(self) -> SQLiteBroker:
        return await self._stack.enter_async_context(SQLiteBroker(self.path, lease=LEASE, clock=self))

    async def backend(self) -> SQLiteBackend:
        return await self._stack.enter_async_context(SQLiteBackend(self.path, clock=self))

    def now(self) -> float:
        return self()
