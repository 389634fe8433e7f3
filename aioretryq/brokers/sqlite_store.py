"""The broker's transactions in an SQLite file: plain functions of a connection."""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING

from aioretryq.brokers.parking import as_not_parked
from aioretryq.brokers.sweep import Sweeps, sweep
from aioretryq.drivers import doorbell
from aioretryq.message import DeadEntry, Delivery

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from aioretryq.message import Finish, Outgoing

TAG_MEMORY = 60.0
"""Seconds for which a tag that was sent is known."""
ADMITTED_AT_ONCE = 1000
"""Parked messages that one claim lets in, so that it stays short when very many are due at once."""

WAITING = "due IS NULL AND receipt IS NULL"
LANE = f"FROM messages WHERE queue = ? AND priority = ? AND {WAITING}"
TAIL = f"(SELECT coalesce(max(position), 0) + 1 {LANE})"
FRONT = f"(SELECT coalesce(min(position), 0) - 1 {LANE})"


# Each of these is one transaction, or part of one; those that bring something return whom to ring.


def topic(queue: str) -> str:
    return f"queue:{queue}"


def send(connection: sqlite3.Connection, messages: Sequence[Outgoing], now: float) -> set[int]:
    connection.execute("DELETE FROM sent WHERE expires <= ?", (now,))
    for message in messages:
        fresh = connection.execute("INSERT OR IGNORE INTO sent VALUES (?, ?)", (message.tag, now + TAG_MEMORY))
        if not fresh.rowcount:
            continue
        lane, counts = (message.queue, message.priority), (message.deliveries, message.interruptions)
        connection.execute(
            f"""INSERT INTO messages (queue, priority, position, due, body, redelivered, deliveries, interruptions)
            VALUES (?, ?, {TAIL}, ?, ?, ?, ?, ?)""",
            (*lane, *lane, message.due, message.body, any(counts), *counts),
        )
    return doorbell.ports(connection, {topic(message.queue) for message in messages})


def claim(
    connection: sqlite3.Connection, queues: Sequence[str], limit: int, now: float, until: float
) -> list[Delivery]:
    found: list[tuple[int, int, int, int]] = []
    for rank, queue in enumerate(dict.fromkeys(queues)):
        _admit_due(connection, queue, now)
        rows = connection.execute(
            f"SELECT priority, position, id FROM messages WHERE queue = ? AND {WAITING} "
            "ORDER BY priority, position LIMIT ?",
            (queue, limit),
        )
        found.extend((priority, rank, position, number) for priority, position, number in rows)
    found.sort()
    receipt = secrets.token_hex(8)
    return [_hold(connection, number, receipt, until) for _, _, _, number in found[:limit]]


def _admit_due(connection: sqlite3.Connection, queue: str, now: float) -> None:
    due = connection.execute(
        "SELECT id, priority FROM messages WHERE queue = ? AND due <= ? ORDER BY due, id LIMIT ?",
        (queue, now, ADMITTED_AT_ONCE),
    ).fetchall()
    connection.executemany(
        f"UPDATE messages SET due = NULL, position = {TAIL} WHERE id = ?",
        [(queue, priority, number) for number, priority in due],
    )


def _hold(connection: sqlite3.Connection, number: int, receipt: str, until: float) -> Delivery:
    connection.execute("UPDATE messages SET receipt = ?, lease_until = ? WHERE id = ?", (receipt, until, number))
    query = "SELECT queue, body, priority, redelivered, deliveries, interruptions FROM messages WHERE id = ?"
    queue, body, priority, redelivered, deliveries, interruptions = connection.execute(query, (number,)).fetchone()
    tag = f"{number}:{receipt}"
    return Delivery(queue, body, tag, priority, bool(redelivered), deliveries + 1, interruptions)


def _held(delivery: Delivery) -> tuple[str, str]:
    number, _, receipt = delivery.tag.partition(":")
    return number, receipt


def finish(connection: sqlite3.Connection, finishes: Sequence[Finish], now: float) -> tuple[list[bool], set[int]]:
    done: list[bool] = []
    follow_ups: list[Outgoing] = []
    for finish in finishes:
        query = "DELETE FROM messages WHERE id = ? AND receipt = ?"
        done.append(connection.execute(query, _held(finish.delivery)).rowcount == 1)
        if not done[-1]:
            continue
        follow_ups.extend(finish.send)
        if finish.dead is not None:
            bury(connection, [finish.dead])
    return done, send(connection, follow_ups, now) if follow_ups else set()


def _put_back(
    connection: sqlite3.Connection, queue: str, priority: int, held: tuple[str | int, str], counter: str
) -> None:
    query = f"""UPDATE messages SET receipt = NULL, lease_until = NULL, redelivered = 1, position = {FRONT},
        {counter} = {counter} + 1 WHERE id = ? AND receipt = ?"""
    connection.execute(query, (queue, priority, *held))


def requeue(connection: sqlite3.Connection, deliveries: Sequence[Delivery]) -> set[int]:
    for delivery in reversed(deliveries):  # the last one put in front is the first
        _put_back(connection, delivery.queue, delivery.priority, _held(delivery), "interruptions")
    return doorbell.ports(connection, {topic(delivery.queue) for delivery in deliveries})


def _ended(connection: sqlite3.Connection, now: float, limit: int) -> list[tuple[int, str, str, int]]:
    query = """SELECT id, receipt, queue, priority FROM messages
        WHERE lease_until <= ? ORDER BY lease_until, id LIMIT ?"""
    return connection.execute(query, (now, limit)).fetchall()


def _sweeps(connection: sqlite3.Connection) -> Sweeps:
    found = connection.execute("SELECT last, quiet_until FROM sweep WHERE only = 1").fetchone()
    return Sweeps(*found) if found else Sweeps()


def nothing_to_recover(connection: sqlite3.Connection, now: float, lease: float) -> bool:
    """Whether a sweep would put nothing back, and another one was noted a moment ago."""
    before = _sweeps(connection)
    allowed, after = sweep(before, now, lease)
    noted = before.last is not None and now - before.last < lease / 10 and before.quiet_until == after.quiet_until
    return noted and not (allowed and _ended(connection, now, 1))


def recover(connection: sqlite3.Connection, now: float, lease: float, limit: int) -> tuple[int, set[int]]:
    allowed, after = sweep(_sweeps(connection), now, lease)
    connection.execute("INSERT OR REPLACE INTO sweep (only, last, quiet_until) VALUES (1, ?, ?)", after)
    ended = _ended(connection, now, limit) if allowed else []
    for number, receipt, queue, priority in reversed(ended):
        _put_back(connection, queue, priority, (number, receipt), "deliveries")
    return len(ended), doorbell.ports(connection, {topic(queue) for _, _, queue, _ in ended})


def extend(connection: sqlite3.Connection, deliveries: Sequence[Delivery], until: float) -> list[bool]:
    query = "UPDATE messages SET lease_until = ? WHERE id = ? AND receipt = ?"
    return [connection.execute(query, (until, *_held(delivery))).rowcount == 1 for delivery in deliveries]


def revoke(connection: sqlite3.Connection, notices: Sequence[str], now: float, expires: float) -> set[int]:
    connection.execute("DELETE FROM revoked WHERE expires <= ?", (now,))
    rows = [(notice, expires) for notice in notices]
    connection.executemany("INSERT INTO revoked (notice, expires) VALUES (?, ?)", rows)
    return doorbell.all_ports(connection, topic(""))


def revoked_since(connection: sqlite3.Connection, number: int, now: float) -> list[tuple[int, str]]:
    query = "SELECT id, notice FROM revoked WHERE id > ? AND expires > ? ORDER BY id"
    return connection.execute(query, (number, now)).fetchall()


def next_arrival(connection: sqlite3.Connection, queues: Sequence[str]) -> float:
    """When a claim may find something: -inf for now, inf for nobody knows."""
    arrival = math.inf
    for queue in queues:
        if connection.execute(f"SELECT 1 FROM messages WHERE queue = ? AND {WAITING} LIMIT 1", (queue,)).fetchone():
            return -math.inf
        query = "SELECT min(due) FROM messages WHERE queue = ? AND due IS NOT NULL"
        ((due,),) = connection.execute(query, (queue,)).fetchall()
        arrival = min(arrival, math.inf if due is None else due)
    return arrival


def depth(connection: sqlite3.Connection, queue: str) -> int:
    count = 0
    for kind in (WAITING, "due IS NOT NULL"):
        ((found,),) = connection.execute(f"SELECT count(*) FROM messages WHERE queue = ? AND {kind}", (queue,))
        count += found
    return count


def parked(connection: sqlite3.Connection, queues: Sequence[str] | None) -> dict[str, int]:
    rows = connection.execute(
        "SELECT queue, count(*) FROM messages WHERE due IS NOT NULL GROUP BY queue ORDER BY queue"
    )
    found = {str(queue): int(count) for queue, count in rows}
    return found if queues is None else {queue: found.get(queue, 0) for queue in queues}


def unpark(connection: sqlite3.Connection, queue: str, limit: int) -> tuple[int, set[int]]:
    rows = connection.execute(
        "SELECT id, priority, body FROM messages WHERE queue = ? AND due IS NOT NULL ORDER BY due, id LIMIT ?",
        (queue, max(limit, 0)),
    ).fetchall()
    connection.executemany(
        f"UPDATE messages SET due = NULL, position = {TAIL}, body = ? WHERE id = ?",
        [(queue, priority, as_not_parked(body), number) for number, priority, body in rows],
    )
    return len(rows), doorbell.ports(connection, {topic(queue)}) if rows else set()


def purge(connection: sqlite3.Connection, queue: str) -> int:
    kinds = (WAITING, "due IS NOT NULL")
    return sum(connection.execute(f"DELETE FROM messages WHERE queue = ? AND {k}", (queue,)).rowcount for k in kinds)


# -- dead letters


def bury(connection: sqlite3.Connection, entries: Sequence[DeadEntry]) -> None:
    rows = [(entry.id, entry.content) for entry in entries]
    connection.executemany("INSERT OR IGNORE INTO dead (id, content) VALUES (?, ?)", rows)


def dead(connection: sqlite3.Connection, after: str, limit: int) -> list[DeadEntry]:
    rows = connection.execute("SELECT id, content FROM dead WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
    return [DeadEntry(entry_id, content) for entry_id, content in rows]


def dead_entry(connection: sqlite3.Connection, entry_id: str) -> bytes | None:
    found = connection.execute("SELECT content FROM dead WHERE id = ?", (entry_id,)).fetchone()
    return found[0] if found else None


def dead_count(connection: sqlite3.Connection) -> int:
    ((count,),) = connection.execute("SELECT count(*) FROM dead").fetchall()
    return int(count)


def exhume(
    connection: sqlite3.Connection, taken: Sequence[tuple[str, Outgoing | None]], now: float
) -> tuple[list[bool], set[int]]:
    done: list[bool] = []
    messages: list[Outgoing] = []
    for entry_id, message in taken:
        done.append(connection.execute("DELETE FROM dead WHERE id = ?", (entry_id,)).rowcount == 1)
        if done[-1] and message is not None:
            messages.append(message)
    return done, send(connection, messages, now) if messages else set()


def trim_dead(connection: sqlite3.Connection, keep: int, before: str) -> int:
    count = connection.execute("DELETE FROM dead WHERE id < ?", (before,)).rowcount
    youngest_too_many = "(SELECT id FROM dead ORDER BY id DESC LIMIT 1 OFFSET ?)"
    return count + connection.execute(f"DELETE FROM dead WHERE id <= {youngest_too_many}", (keep,)).rowcount
