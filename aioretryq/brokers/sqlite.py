"""The broker in an SQLite file: several processes of one machine, no server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Self

from aioretryq.backends import sqlite_results
from aioretryq.backends.sqlite import SQLiteBackend
from aioretryq.brokers import sqlite_exchanges as exchanges
from aioretryq.brokers import sqlite_store as store
from aioretryq.brokers.sqlite_bus import RING, SQLiteBus
from aioretryq.brokers.sqlite_sends import Sends
from aioretryq.drivers import doorbell
from aioretryq.drivers.sqlite import Database, path_of
from aioretryq.drivers.wakeup import Wakeup
from aioretryq.errors import BrokerError, BrokerUnavailable, UnavailableError
from aioretryq.message import Claim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from aioretryq.config import Settings
    from aioretryq.message import Binding, DeadEntry, Delivery, Finish, Outgoing


ARRIVED, PARKED = b"queue", b"parked"
"""The datagrams of those who send: there is a message, or only some that are due later. Others: there may be news."""


class _Waiter(Wakeup):
    """Somebody in `wait`: rung for something to claim, or only because the next message may be due sooner."""

    claim = False


class SQLiteBroker:
    """`sqlite:///relative/path` or `sqlite:////absolute/path`; the file is created where there is none."""

    def __init__(self, path: str, *, lease: float = 30.0, clock: Callable[[], float] = time.time) -> None:
        self.display_url = f"sqlite:///{path}"
        self._database = Database(path, unavailable=BrokerUnavailable, refused=BrokerError)
        self._lease = lease
        self._clock = clock
        self._ringer = doorbell.Ringer()
        self._bell = doorbell.Doorbell(self._database, self._heard)
        self._bus = SQLiteBus(self._database, self._bell, self._ringer, clock)
        self._waiters: set[_Waiter] = set()
        self._last_revocation = 0
        self._sends = Sends()

    @classmethod
    def from_url(cls, url: str, settings: Settings) -> Self:
        return cls(path_of(url), lease=settings.lease)

    def twin(self) -> Self:
        twin = type(self)(self._database.path, lease=self._lease, clock=self._clock)
        twin.display_url = self.display_url
        return twin

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
            for close in (self._bus.close, self._bell.aclose):
                with contextlib.suppress(UnavailableError):
                    await close()
        finally:
            await self._database.aclose()
            self._ringer.close()

    async def send(self, messages: Sequence[Outgoing]) -> None:
        if not messages:
            return
        now = self._clock()
        with self._sends.batch(messages, now) as batch:
            await self._database.write(
                lambda connection: store.send(connection, messages, now, batch),
                lambda ports: self._ringer.ring(ports, [_news(messages)]),
            )

    async def claim(self, queues: Sequence[str], *, limit: int) -> Claim:
        now, seen, until = self._clock(), self._last_revocation, self._clock() + self._lease
        if limit > 0:
            revoked, deliveries = await self._database.write(
                lambda c: (store.revoked_since(c, seen, now), store.claim(c, queues, limit, now, until))
            )
        else:
            revoked, deliveries = await self._database.read(lambda c: (store.revoked_since(c, seen, now), []))
        # Another claim may have told some of them meanwhile.
        fresh = [(number, notice) for number, notice in revoked if number > self._last_revocation]
        self._last_revocation = max([self._last_revocation, *(number for number, _ in fresh)])
        return Claim(deliveries, [notice for _, notice in fresh])

    async def wait(self, queues: Sequence[str], *, timeout: float) -> None:
        loop, waiter = asyncio.get_running_loop(), _Waiter()
        deadline = loop.time() + timeout
        self._waiters.add(waiter)
        try:
            while not waiter.claim:
                waiter.clear()
                # First registered, then looked: what is committed after the look rings.
                await self._bell.announce([store.topic(queue) for queue in queues])
                if waiter.claim:
                    return
                arrival = await self._database.read(lambda connection: store.next_arrival(connection, queues))
                seconds = min(deadline - loop.time(), arrival - self._clock())
                if seconds <= 0:
                    return
                await waiter.wait(min(seconds, self._bell.interval))
        finally:
            self._waiters.discard(waiter)

    def joins(self, backend: object) -> bool:
        # One commit instead of two is a sixth of what SQLite costs a task.
        return isinstance(backend, SQLiteBackend) and backend.path == self._database.path

    async def finish(self, finishes: Sequence[Finish]) -> list[bool | None]:
        if not finishes:
            return []
        now = self._clock()
        finished = await self._database.write(
            lambda connection: store.finish(connection, finishes, now),
            lambda finished: self._tell(finishes, finished),
        )
        return finished.done

    def _tell(self, finishes: Sequence[Finish], finished: store.Finished) -> None:
        if finished.ports:
            self._ringer.ring(finished.ports, [_news(message for finish in finishes for message in finish.send)])
        sqlite_results.announce(self._ringer, finished.listeners, finished.results, finished.stored)

    async def requeue(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            await self._database.write(lambda connection: store.requeue(connection, deliveries), self._ringer.ring)

    async def extend(self, deliveries: Sequence[Delivery]) -> list[bool]:
        if not deliveries:
            return []
        until = self._clock() + self._lease
        return await self._database.write(lambda connection: store.extend(connection, deliveries, until))

    async def recover(self, *, limit: int = 1000, worker: str = "", queues: Sequence[str] = ()) -> int:
        await self._drop_expired()
        # The clock is read where the transaction sees it: what others have noted meanwhile is not ahead of it.
        if await self._database.read(lambda c: store.nothing_to_recover(c, self._clock(), self._lease)):
            return 0  # the usual case takes no lock
        count, _ = await self._database.write(
            lambda c: store.recover(c, self._clock(), self._lease, limit), lambda result: self._ringer.ring(result[1])
        )
        return count

    async def revoke(self, notices: Sequence[str], *, ttl: float) -> None:
        now = self._clock()
        if notices:
            await self._database.write(lambda c: store.revoke(c, notices, now, now + ttl), self._ringer.ring)

    async def depth(self, queues: Sequence[str]) -> dict[str, int]:
        return await self._database.read(
            lambda connection: {queue: store.depth(connection, queue) for queue in queues}
        )

    async def purge(self, queue: str) -> int:
        return await self._database.write(lambda connection: store.purge(connection, queue))

    async def leave(self, worker: str, queues: Sequence[str]) -> list[str]:
        return []  # no other program reads this file

    async def parked(self, queues: Sequence[str] | None = None) -> dict[str, int]:
        return await self._database.read(lambda connection: store.parked(connection, queues))

    async def unpark(self, queue: str, *, limit: int = 1000) -> int:
        count, _ = await self._database.write(
            lambda connection: store.unpark(connection, queue, limit), lambda result: self._ringer.ring(result[1])
        )
        return count

    def bus(self) -> SQLiteBus:
        return self._bus

    async def bind(self, bindings: Sequence[Binding]) -> None:
        if not bindings:
            return
        now = self._clock()
        await self._database.write(lambda connection: exchanges.bind(connection, bindings, now))
        await self._drop_expired()

    async def unbind(self, bindings: Sequence[Binding]) -> None:
        if bindings:
            await self._database.write(lambda connection: exchanges.unbind(connection, bindings))

    async def bindings(self, exchange: str) -> list[Binding]:
        now = self._clock()
        return await self._database.read(lambda connection: exchanges.bound(connection, exchange, now))

    async def _drop_expired(self) -> None:
        now = self._clock()
        if await self._database.read(lambda connection: exchanges.any_expired(connection, now)):
            await self._database.write(lambda c: [store.purge(c, queue) for queue in exchanges.drop_expired(c, now)])

    async def bury(self, entries: Sequence[DeadEntry]) -> None:
        if entries:
            await self._database.write(lambda connection: store.bury(connection, entries))

    async def dead(self, *, after: str = "", limit: int = 100) -> list[DeadEntry]:
        return await self._database.read(lambda connection: store.dead(connection, after, limit))

    async def dead_entry(self, entry_id: str) -> bytes | None:
        return await self._database.read(lambda connection: store.dead_entry(connection, entry_id))

    async def dead_count(self) -> int:
        return await self._database.read(store.dead_count)

    async def exhume(self, taken: Sequence[tuple[str, Outgoing | None]]) -> list[bool]:
        if not taken:
            return []
        now = self._clock()
        done, _ = await self._database.write(
            lambda connection: store.exhume(connection, taken, now), lambda result: self._ringer.ring(result[1])
        )
        return done

    async def trim_dead(self, *, keep: int, before: str) -> int:
        return await self._database.write(lambda connection: store.trim_dead(connection, keep, before))

    def _heard(self, datagram: bytes) -> None:
        if datagram in (RING, doorbell.ANY):
            self._bus.ring()
        if datagram != RING:
            for waiter in self._waiters:
                waiter.claim |= datagram != PARKED
                waiter.set()


def _news(messages: Iterable[Outgoing]) -> bytes:
    return PARKED if all(message.due is not None for message in messages) else ARRIVED
