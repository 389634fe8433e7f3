"""Results in an SQLite file: plain functions of a connection, each (part of) a transaction.

The broker of the same file uses them too: then a result is stored where its message is acknowledged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioretryq.drivers import doorbell
from aioretryq.drivers.sqlite import in_lists

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from aioretryq.message import StoredResult

TOPIC = "results"
DATAGRAMS = 60
"""More announcements than this may not fit into a listener's buffer; then one says: look at everything."""


def store(connection: sqlite3.Connection, results: Sequence[StoredResult], now: float) -> list[bool]:
    """False where a final state is stored already."""
    kept = _states(connection, [result.task_id for result in results], now)
    stored: list[bool] = []
    rows: dict[str, tuple[str, str, float | None, bytes]] = {}
    for result in results:
        task_id, state = result.task_id, result.state
        stored.append(not result.yields_to(kept.get(task_id)))
        if stored[-1]:
            kept[task_id] = state
            rows[task_id] = task_id, state, None if result.ttl is None else now + result.ttl, result.document
    connection.executemany(
        """INSERT INTO results (task_id, state, expires, document) VALUES (?, ?, ?, ?)
        ON CONFLICT (task_id) DO UPDATE
        SET state = excluded.state, expires = excluded.expires, document = excluded.document""",
        rows.values(),
    )
    return stored


def _states(connection: sqlite3.Connection, task_ids: Sequence[str], now: float) -> dict[str, str]:
    found: dict[str, str] = {}
    for marks, chunk in in_lists(task_ids):
        query = f"SELECT task_id, state FROM results WHERE task_id IN ({marks}) AND (expires IS NULL OR expires > ?)"
        found.update(connection.execute(query, [*chunk, now]).fetchall())
    return found


def fetch(connection: sqlite3.Connection, task_ids: Sequence[str], now: float) -> Iterator[tuple[str, bytes]]:
    for marks, chunk in in_lists(task_ids):
        query = f"""SELECT task_id, document FROM results
            WHERE task_id IN ({marks}) AND (expires IS NULL OR expires > ?)"""
        yield from connection.execute(query, [*chunk, now])


def clean(connection: sqlite3.Connection, now: float, limit: int) -> int:
    expired = "SELECT task_id FROM results WHERE expires <= ? LIMIT ?"
    return connection.execute(f"DELETE FROM results WHERE task_id IN ({expired})", (now, limit)).rowcount


def listeners(connection: sqlite3.Connection) -> set[int]:
    """Whom to tell of what is stored."""
    return doorbell.ports(connection, [TOPIC])


def announce(ringer: doorbell.Ringer, ports: set[int], results: Sequence[StoredResult], stored: list[bool]) -> None:
    """After the commit: tell the listeners which results are new."""
    if ports:
        datagrams = doorbell.pack(result.task_id for result, done in zip(results, stored, strict=True) if done)
        ringer.ring(ports, datagrams if len(datagrams) <= DATAGRAMS else [doorbell.ANY])
