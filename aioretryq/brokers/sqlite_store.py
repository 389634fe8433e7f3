"""The broker's transactions in an SQLite file: plain functions of a connection."""

from __future__ import annotations

import heapq
import itertools
import math
import secrets
from typing import TYPE_CHECKING, NamedTuple

from aioretryq.backends import sqlite_results
from aioretryq.brokers import sqlite_parts
from aioretryq.brokers.parking import as_not_parked
from aioretryq.brokers.sqlite_sends import TAG_MEMORY, Batch
from aioretryq.brokers.sweep import Sweeps, sweep
from aioretryq.drivers import doorbell
from aioretryq.drivers.sqlite import in_lists
from aioretryq.message import DeadEntry, Delivery

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from aioretryq.message import Finish, Outgoing, StoredResult

FORGOTTEN_AT_ONCE = 1000
"""Tags that are over, which one send deletes: after very many sends it is not one that pays for all of them."""
ADMITTED_AT_ONCE = 1000
"""Parked messages that one claim lets in, so that it stays short when very many are due at once."""

FORGET_TAGS = "DELETE FROM sent WHERE tag IN (SELECT tag FROM sent WHERE expires <= ? LIMIT ?)"
WAITING = "due IS NULL AND receipt IS NULL"
LANE = f"FROM messages WHERE queue = ? AND priority = ? AND {WAITING}"
NEXT = f"""SELECT priority, ? AS rank, position, id, queue, body, redelivered, deliveries, interruptions
    FROM messages WHERE queue = ? AND {WAITING} ORDER BY priority, position LIMIT ?"""
FRONT = f"(SELECT coalesce(min(position), 0) - 1 {LANE})"


# Each of these is one transaction, or part of one; those that bring something return whom to ring.


def topic(queue: str) -> str:
    return f"queue:{queue}"


def send(
    connection: sqlite3.Connection, messages: Sequence[Outgoing], now: float, batch: Batch | None = None
) -> set[int]:
    connection.execute(FORGET_TAGS, (now, FORGOTTEN_AT_ONCE))
    fresh, names = _unsent(connection, messages, now, batch or Batch("", {}))
    connection.executemany("INSERT OR REPLACE INTO sent VALUES (?, ?)", [(name, now + TAG_MEMORY) for name in names])
    tails = _Tails(connection)
    connection.executemany(
        """INSERT INTO messages (queue, priority, position, due, body, redelivered, deliveries, interruptions)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
        [_row(message, tails) for message in fresh],
    )
    return doorbell.ports(connection, {topic(message.queue) for message in messages})


def _unsent(
    connection: sqlite3.Connection, messages: Sequence[Outgoing], now: float, batch: Batch
) -> tuple[list[Outgoing], list[str]]:
    """Those that were not sent within the last minute, and by which names that will be known of them."""
    wanted: dict[str, Outgoing] = {}
    for message in messages:
        wanted.setdefault(message.tag, message)
    tags = [tag for tag, message in wanted.items() if not batch.name or batch.by_tag(message)]
    known: set[str] = set()
    for marks, names in in_lists([*tags, *(batch.doubts[tag] for tag in tags if tag in batch.doubts)]):
        query = f"SELECT tag FROM sent WHERE tag IN ({marks}) AND expires > ?"
        known.update(tag for (tag,) in connection.execute(query, [*names, now]))
    by_batch = len(tags) < len(wanted)
    for tag in tags:
        if tag in known or batch.doubts.get(tag) in known:
            del wanted[tag]
    remembered = [tag for tag in tags if tag in wanted]
    return list(wanted.values()), [*remembered, batch.name] if by_batch else remembered


def _row(message: Outgoing, tails: _Tails) -> tuple[object, ...]:
    queue, priority, due = message.queue, message.priority, message.due
    counts = message.deliveries, message.interruptions
    # The place of a parked message is found when it is due.
    position = tails.next(queue, priority) if due is None else 0
    return queue, priority, position, due, message.body, any(counts), *counts


class _Tails:
    """Positions at the tails of lanes, in one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._last: dict[tuple[str, int], int] = {}

    def next(self, queue: str, priority: int) -> int:
        lane = queue, priority
        if (last := self._last.get(lane)) is None:
            ((last,),) = self._connection.execute(f"SELECT coalesce(max(position), 0) {LANE}", lane)
        self._last[lane] = last + 1
        return last + 1


def claim(
    connection: sqlite3.Connection, queues: Sequence[str], limit: int, now: float, until: float
) -> list[Delivery]:
    names = list(dict.fromkeys(queues))
    for queue in names:
        _admit_due(connection, queue, now)
    rows = [connection.execute(NEXT, (rank, queue, limit)) for rank, queue in enumerate(names)]
    found = list(itertools.islice(heapq.merge(*rows), limit))
    for cursor in rows:
        cursor.close()  # a query that has not ended must not see what follows
    receipt = secrets.token_hex(8)
    for marks, numbers in in_lists([row[3] for row in found]):
        update = f"UPDATE messages SET receipt = ?, lease_until = ? WHERE id IN ({marks})"
        connection.execute(update, [receipt, until, *numbers])
    return [
        Delivery(queue, body, f"{number}:{receipt}", priority, bool(redelivered), deliveries + 1, interruptions)
        for priority, _, _, number, queue, body, redelivered, deliveries, interruptions in found
    ]


def _admit_due(connection: sqlite3.Connection, queue: str, now: float) -> None:
    due = connection.execute(
        "SELECT id, priority FROM messages WHERE queue = ? AND due <= ? ORDER BY due, id LIMIT ?",
        (queue, now, ADMITTED_AT_ONCE),
    ).fetchall()
    tails = _Tails(connection)
    connection.executemany(
        "UPDATE messages SET due = NULL, position = ? WHERE id = ?",
        [(tails.next(queue, priority), number) for number, priority in due],
    )


def _number(tag: str) -> str:
    return tag.partition(":")[0]


def _held(connection: sqlite3.Connection, tags: Iterable[str]) -> dict[str, int]:
    """Those of the receipts that still hold their message, and its number."""
    held: dict[str, int] = {}
    for marks, numbers in in_lists([_number(tag) for tag in tags]):
        query = f"SELECT id, receipt FROM messages WHERE id IN ({marks}) AND receipt IS NOT NULL"
        held.update((f"{number}:{receipt}", number) for number, receipt in connection.execute(query, numbers))
    return held


class Finished(NamedTuple):
    """What came of finishes: whether each was carried out, whom to ring, and what of the results that came along."""

    done: list[bool | None]
    ports: set[int]
    results: list[StoredResult]
    stored: list[bool]
    listeners: set[int]


def finish(connection: sqlite3.Connection, finishes: Sequence[Finish], now: float) -> Finished:
    held = _held(connection, [finish.delivery.tag for finish in finishes if finish.delivery is not None])
    mine = [None if finish.delivery is None else held.pop(finish.delivery.tag, None) for finish in finishes]
    done: list[bool | None] = [
        number is not None or finish.delivery is None for number, finish in zip(mine, finishes, strict=True)
    ]
    for n, finish in enumerate(finishes):
        if done[n] and finish.closes and not sqlite_parts.close(connection, finish.closes, now):
            done[n] = None
        if done[n] and finish.parts and not sqlite_parts.count(connection, finish.parts, now):
            done[n] = None
    for marks, numbers in in_lists([number for n, number in enumerate(mine) if number is not None and done[n]]):
        connection.execute(f"DELETE FROM messages WHERE id IN ({marks})", numbers)
    ours = list(itertools.compress(finishes, done))
    if dead := [finish.dead for finish in ours if finish.dead is not None]:
        bury(connection, dead)
    follow_ups = [message for finish in ours for message in finish.send]
    ports = send(connection, follow_ups, now) if follow_ups else set()
    results = [finish.result for finish in ours if finish.result is not None]
    stored = sqlite_results.store(connection, results, now)
    listeners = sqlite_results.listeners(connection) if any(stored) else set()
    return Finished(done, ports, results, stored, listeners)


def _put_back(
    connection: sqlite3.Connection, queue: str, priority: int, held: tuple[str | int, str], counter: str
) -> None:
    query = f"""UPDATE messages SET receipt = NULL, lease_until = NULL, redelivered = 1, position = {FRONT},
        {counter} = {counter} + 1 WHERE id = ? AND receipt = ?"""
    connection.execute(query, (queue, priority, *held))


def requeue(connection: sqlite3.Connection, deliveries: Sequence[Delivery]) -> set[int]:
    for delivery in reversed(deliveries):  # the last one put in front is the first
        number, _, receipt = delivery.tag.partition(":")
        _put_back(connection, delivery.queue, delivery.priority, (number, receipt), "interruptions")
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
    held = _held(connection, [delivery.tag for delivery in deliveries])
    for marks, numbers in in_lists(list(held.values())):
        connection.execute(f"UPDATE messages SET lease_until = ? WHERE id IN ({marks})", [until, *numbers])
    return [delivery.tag in held for delivery in deliveries]


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
    tails = _Tails(connection)
    connection.executemany(
        "UPDATE messages SET due = NULL, position = ?, body = ? WHERE id = ?",
        [(tails.next(queue, priority), as_not_parked(body), number) for number, priority, body in rows],
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
