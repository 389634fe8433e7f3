"""Brokers and backends on one new SQLite file, with a clock that a test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioretryq.backends.sqlite import SQLiteBackend
from aioretryq.brokers.sqlite import SQLiteBroker
from contracts.broker_world import LEASE
from contracts.shifted_clock import ShiftedClock

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path


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
