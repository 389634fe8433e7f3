"""The transactions of the bus and of bindings in an SQLite file: plain functions of a connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aioretryq.drivers import doorbell
from aioretryq.message import Binding, Broadcast
from aioretryq.routing import topic_matches

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

KEPT = 60.0
"""Seconds for which a broadcast can be read by those who listened when it was sent."""

DEAF = 30.0
"""Seconds after which somebody who has not said so again does not listen any more."""

KEPT_AT_MOST = 20_000

# -- broadcasts


def topic(exchange: str) -> str:
    return f"bus:{exchange}"


def add_ears(connection: sqlite3.Connection, ears: Iterable[tuple[str, str, str, bool]]) -> int:
    """Those (name, exchange, pattern, whether it is an inbox) listen from now on; returns the last number so far."""
    now = time.time()
    connection.execute("DELETE FROM ears WHERE until <= ?", (now,))
    rows = [(*ear, now + DEAF) for ear in ears]
    connection.executemany("INSERT OR REPLACE INTO ears VALUES (?, ?, ?, ?, ?)", rows)
    return last_number(connection)


def remove_ears(connection: sqlite3.Connection, names: Iterable[str]) -> None:
    connection.executemany("DELETE FROM ears WHERE name = ?", [(name,) for name in names])


def listening(connection: sqlite3.Connection, *, inbox: bool) -> list[tuple[str, str]]:
    """(exchange, pattern) of all who do."""
    query = "SELECT exchange, pattern FROM ears WHERE inbox = ? AND until > ?"
    return connection.execute(query, (inbox, time.time())).fetchall()


def publish(connection: sqlite3.Connection, messages: Sequence[Broadcast], now: float) -> tuple[list[int], set[int]]:
    ears = listening(connection, inbox=False)
    counts = [
        sum(
            exchange == message.exchange and topic_matches(pattern, message.routing_key) for exchange, pattern in ears
        )
        for message in messages
    ]
    wanted = [message for message, count in zip(messages, counts, strict=True) if count]
    return counts, _add(connection, wanted, now, now + KEPT, inbox=False)


def answer(connection: sqlite3.Connection, message: Broadcast, now: float, ttl: float) -> tuple[int, set[int]]:
    count = listening(connection, inbox=True).count((message.exchange, message.routing_key))
    return count, _add(connection, [message] if count else [], now, now + ttl, inbox=True)


def _add(
    connection: sqlite3.Connection, messages: Sequence[Broadcast], now: float, expires: float, *, inbox: bool
) -> set[int]:
    connection.execute("DELETE FROM broadcasts WHERE expires <= ?", (now,))
    connection.executemany(
        "INSERT INTO broadcasts (exchange, routing_key, inbox, expires, body) VALUES (?, ?, ?, ?, ?)",
        [(message.exchange, message.routing_key, inbox, expires, message.body) for message in messages],
    )
    connection.execute("DELETE FROM broadcasts WHERE id <= ?", (last_number(connection) - KEPT_AT_MOST,))
    return doorbell.ports(connection, {topic(message.exchange) for message in messages})


def last_number(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'broadcasts'").fetchone()
    return int(found[0]) if found else 0


def broadcasts(
    connection: sqlite3.Connection, exchanges: Sequence[str], after: int, limit: int, now: float
) -> list[tuple[int, bool, Broadcast]]:
    """(number, whether it is for inboxes, message) of the oldest ones with higher numbers."""
    query = f"""SELECT id, inbox, exchange, routing_key, body FROM broadcasts
        WHERE id > ? AND expires > ? AND exchange IN ({", ".join("?" * len(exchanges))}) ORDER BY id LIMIT ?"""
    rows = connection.execute(query, (after, now, *exchanges, limit))
    return [(number, bool(inbox), Broadcast(*rest)) for number, inbox, *rest in rows]


# -- bindings


def bind(connection: sqlite3.Connection, bindings: Sequence[Binding], now: float) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO bindings (exchange, kind, routing_key, queue, until) VALUES (?, ?, ?, ?, ?)",
        [
            (b.exchange, b.kind, b.routing_key, b.queue, None if b.expires is None else now + b.expires)
            for b in bindings
        ],
    )


def unbind(connection: sqlite3.Connection, bindings: Sequence[Binding]) -> None:
    connection.executemany(
        "DELETE FROM bindings WHERE exchange = ? AND kind = ? AND routing_key = ? AND queue = ?",
        [(b.exchange, b.kind, b.routing_key, b.queue) for b in bindings],
    )


def bound(connection: sqlite3.Connection, exchange: str, now: float) -> list[Binding]:
    query = """SELECT exchange, kind, routing_key, queue FROM bindings
        WHERE exchange = ? AND (until IS NULL OR until > ?)"""
    return [Binding(*row) for row in connection.execute(query, (exchange, now))]


def any_expired(connection: sqlite3.Connection, now: float) -> bool:
    return connection.execute("SELECT 1 FROM bindings WHERE until <= ? LIMIT 1", (now,)).fetchone() is not None


def drop_expired(connection: sqlite3.Connection, now: float) -> list[str]:
    """The queues that went away because nobody has used them for too long; they are to be purged."""
    queues = [queue for (queue,) in connection.execute("SELECT queue FROM bindings WHERE until <= ?", (now,))]
    connection.execute("DELETE FROM bindings WHERE until <= ?", (now,))
    return queues
