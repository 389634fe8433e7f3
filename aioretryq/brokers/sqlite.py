"""The broker in an SQLite file: several processes of one machine, no server."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from typing import TYPE_CHECKING, Self

from aioretryq.drivers import doorbell
from aioretryq.drivers.sqlite import Database, path_of
from aioretryq.drivers.wakeup import Wakeup
from aioretryq.errors import BrokerError, BrokerUnavailable, UnavailableError
from aioretryq.message import Claim, Delivery

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from aioretryq.config import Settings
    from aioretryq.message import Finish, Outgoing

TAG_MEMORY = 60.0
"""Seconds for which a tag that was sent is known."""
ADMITTED_AT_ONCE = 1000
"""Parked messages that one claim lets in, so that it stays short when very many are due at once."""

WAITING = "due IS NULL AND receipt IS NULL"
LANE = f"FROM messages WHERE queue = ? AND priority = ? AND {WAITING}"
TAIL = f"(SELECT coalesce(max(position), 0) + 1 {LANE})"
FRONT = f"(SELECT coalesce(min(position), 0) - 1 {LANE})"


class SQLiteBroker:
    """`sqlite:///relative/path` or `sqlite:////absolute/path`; the file is created where there is none."""

    def __init__(self, path: str, *, lease: float = 30.0, clock: Callable[[], float] = time.time) -> None:
        self.display_url = f"sqlite:///{path}"
        self._database = Database(path, unavailable=BrokerUnavailable, refused=BrokerError)
        self._lease = lease
        self._clock = clock
        self._ringer = doorbell.Ringer()
        self._bell = doorbell.Doorbell(self._database, self._heard)
        self._waiters: set[Wakeup] = set()
        self._last_revocation = 0

    @classmethod
    def from_url(cls, url: str, settings: Settings) -> Self:
        return cls(path_of(url), lease=settings.lease)

    async def __aenter__(self) -> Self:
        await self._database.open()
        self._ringer.open()
        try:
            await self._bell.open()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._heard(doorbell.ANY)
        try:
            # An entry that stays in the table is stale soon.
            with contextlib.suppress(UnavailableError):
                await self._bell.aclose()
        finally:
            await self._database.aclose()
            self._ringer.close()

    async def send(self, messages: Sequence[Outgoing]) -> None:
        if not messages:
            return
        now = self._clock()
        await self._database.write(lambda connection: _send(connection, messages, now), self._ringer.ring)

    async def claim(self, queues: Sequence[str], *, limit: int) -> Claim:
        now, seen, until = self._clock(), self._last_revocation, self._clock() + self._lease
        if limit > 0:
            revoked, deliveries = await self._database.write(
                lambda c: (_revoked_since(c, seen, now), _claim(c, queues, limit, now, until))
            )
        else:
            revoked, deliveries = await self._database.read(lambda c: (_revoked_since(c, seen, now), []))
        # Another claim may have told some of them meanwhile.
        fresh = [(number, notice) for number, notice in revoked if number > self._last_revocation]
        self._last_revocation = max([self._last_revocation, *(number for number, _ in fresh)])
        return Claim(deliveries, [notice for _, notice in fresh])

    async def wait(self, queues: Sequence[str], *, timeout: float) -> None:
        loop, waiter = asyncio.get_running_loop(), Wakeup()
        deadline = loop.time() + timeout
        self._waiters.add(waiter)
        try:
            while not waiter.is_set():
                # First registered, then looked: what is committed after the look rings.
                await self._bell.announce([_topic(queue) for queue in queues])
                if waiter.is_set():
                    return
                arrival = await self._database.read(lambda connection: _next_arrival(connection, queues))
                seconds = min(deadline - loop.time(), arrival - self._clock())
                if seconds <= 0:
                    return
                await waiter.wait(min(seconds, self._bell.interval))
        finally:
            self._waiters.discard(waiter)

    async def finish(self, finishes: Sequence[Finish]) -> list[bool]:
        if not finishes:
            return []
        now = self._clock()
        done, _ = await self._database.write(
            lambda connection: _finish(connection, finishes, now), lambda result: self._ringer.ring(result[1])
        )
        return done

    async def requeue(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            await self._database.write(lambda connection: _requeue(connection, deliveries), self._ringer.ring)

    async def extend(self, deliveries: Sequence[Delivery]) -> list[bool]:
        if not deliveries:
            return []
        until = self._clock() + self._lease
        return await self._database.write(lambda connection: _extend(connection, deliveries, until))

    async def recover(self, *, limit: int = 1000) -> int:
        now = self._clock()
        if not await self._database.read(lambda connection: _ended(connection, now, 1)):
            return 0  # the usual case takes no lock
        count, _ = await self._database.write(
            lambda connection: _recover(connection, now, limit), lambda result: self._ringer.ring(result[1])
        )
        return count

    async def revoke(self, notices: Sequence[str], *, ttl: float) -> None:
        now = self._clock()
        if notices:
            await self._database.write(lambda c: _revoke(c, notices, now, now + ttl), self._ringer.ring)

    async def depth(self, queues: Sequence[str]) -> dict[str, int]:
        return await self._database.read(lambda connection: {queue: _depth(connection, queue) for queue in queues})

    async def purge(self, queue: str) -> int:
        return await self._database.write(lambda connection: _purge(connection, queue))

    async def dead(self, *, limit: int = 1000) -> list[bytes]:
        query = "SELECT entry FROM dead ORDER BY id LIMIT ?"
        return await self._database.read(lambda c: [entry for (entry,) in c.execute(query, (limit,))])

    def _heard(self, datagram: bytes) -> None:
        for waiter in self._waiters:
            waiter.set()


# Each of these is one transaction, or part of one; those that bring something return whom to ring.


def _topic(queue: str) -> str:
    return f"queue:{queue}"


def _send(connection: sqlite3.Connection, messages: Sequence[Outgoing], now: float) -> set[int]:
    connection.execute("DELETE FROM sent WHERE expires <= ?", (now,))
    for message in messages:
        fresh = connection.execute("INSERT OR IGNORE INTO sent VALUES (?, ?)", (message.tag, now + TAG_MEMORY))
        if not fresh.rowcount:
            continue
        lane = (message.queue, message.priority)
        connection.execute(
            f"INSERT INTO messages (queue, priority, position, due, body) VALUES (?, ?, {TAIL}, ?, ?)",
            (*lane, *lane, message.due, message.body),
        )
    return doorbell.ports(connection, {_topic(message.queue) for message in messages})


def _claim(
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
    query = "SELECT queue, body, priority, redelivered FROM messages WHERE id = ?"
    queue, body, priority, redelivered = connection.execute(query, (number,)).fetchone()
    return Delivery(queue, body, f"{number}:{receipt}", priority, bool(redelivered))


def _held(delivery: Delivery) -> tuple[str, str]:
    number, _, receipt = delivery.tag.partition(":")
    return number, receipt


def _finish(connection: sqlite3.Connection, finishes: Sequence[Finish], now: float) -> tuple[list[bool], set[int]]:
    done: list[bool] = []
    send: list[Outgoing] = []
    for finish in finishes:
        query = "DELETE FROM messages WHERE id = ? AND receipt = ?"
        done.append(connection.execute(query, _held(finish.delivery)).rowcount == 1)
        if not done[-1]:
            continue
        send.extend(finish.send)
        if finish.dead is not None:
            connection.execute("INSERT INTO dead (entry) VALUES (?)", (finish.dead,))
    return done, _send(connection, send, now) if send else set()


def _put_back(connection: sqlite3.Connection, queue: str, priority: int, held: tuple[str | int, str]) -> bool:
    query = f"""UPDATE messages SET receipt = NULL, lease_until = NULL, redelivered = 1, position = {FRONT}
        WHERE id = ? AND receipt = ?"""
    return connection.execute(query, (queue, priority, *held)).rowcount == 1


def _requeue(connection: sqlite3.Connection, deliveries: Sequence[Delivery]) -> set[int]:
    for delivery in reversed(deliveries):  # the last one put in front is the first
        _put_back(connection, delivery.queue, delivery.priority, _held(delivery))
    return doorbell.ports(connection, {_topic(delivery.queue) for delivery in deliveries})


def _ended(connection: sqlite3.Connection, now: float, limit: int) -> list[tuple[int, str, str, int]]:
    query = """SELECT id, receipt, queue, priority FROM messages
        WHERE lease_until <= ? ORDER BY lease_until, id LIMIT ?"""
    return connection.execute(query, (now, limit)).fetchall()


def _recover(connection: sqlite3.Connection, now: float, limit: int) -> tuple[int, set[int]]:
    ended = _ended(connection, now, limit)
    for number, receipt, queue, priority in reversed(ended):
        _put_back(connection, queue, priority, (number, receipt))
    return len(ended), doorbell.ports(connection, {_topic(queue) for _, _, queue, _ in ended})


def _extend(connection: sqlite3.Connection, deliveries: Sequence[Delivery], until: float) -> list[bool]:
    query = "UPDATE messages SET lease_until = ? WHERE id = ? AND receipt = ?"
    return [connection.execute(query, (until, *_held(delivery))).rowcount == 1 for delivery in deliveries]


def _revoke(connection: sqlite3.Connection, notices: Sequence[str], now: float, expires: float) -> set[int]:
    connection.execute("DELETE FROM revoked WHERE expires <= ?", (now,))
    rows = [(notice, expires) for notice in notices]
    connection.executemany("INSERT INTO revoked (notice, expires) VALUES (?, ?)", rows)
    return doorbell.all_ports(connection, _topic(""))


def _revoked_since(connection: sqlite3.Connection, number: int, now: float) -> list[tuple[int, str]]:
    query = "SELECT id, notice FROM revoked WHERE id > ? AND expires > ? ORDER BY id"
    return connection.execute(query, (number, now)).fetchall()


def _next_arrival(connection: sqlite3.Connection, queues: Sequence[str]) -> float:
    """When a claim may find something: -inf for now, inf for nobody knows."""
    arrival = math.inf
    for queue in queues:
        if connection.execute(f"SELECT 1 FROM messages WHERE queue = ? AND {WAITING} LIMIT 1", (queue,)).fetchone():
            return -math.inf
        query = "SELECT min(due) FROM messages WHERE queue = ? AND due IS NOT NULL"
        ((due,),) = connection.execute(query, (queue,)).fetchall()
        arrival = min(arrival, math.inf if due is None else due)
    return arrival


def _depth(connection: sqlite3.Connection, queue: str) -> int:
    count = 0
    for kind in (WAITING, "due IS NOT NULL"):
        ((found,),) = connection.execute(f"SELECT count(*) FROM messages WHERE queue = ? AND {kind}", (queue,))
        count += found
    return count


def _purge(connection: sqlite3.Connection, queue: str) -> int:
    kinds = (WAITING, "due IS NOT NULL")
    return sum(connection.execute(f"DELETE FROM messages WHERE queue = ? AND {k}", (queue,)).rowcount for k in kinds)
