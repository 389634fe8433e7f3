"""Broadcasts in an SQLite file: rows for a minute, and a datagram to each process that listens."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from aioretryq.brokers import sqlite_exchanges as store
from aioretryq.brokers.ears import Ear
from aioretryq.drivers import doorbell
from aioretryq.drivers.wakeup import Wakeup
from aioretryq.errors import BrokerError, BrokerUnavailable, NotOpenError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from aioretryq.drivers.sqlite import Database
    from aioretryq.message import Broadcast

RING = b"bus"
"""The datagram that says: look at the broadcasts."""

CHUNK = 500
"""Broadcasts that are read at once."""


@dataclass(slots=True)
class _Listening:
    name: str
    ear: Ear
    inbox: bool
    seen: int
    """The number of the last broadcast that was read for it."""

    @property
    def row(self) -> tuple[str, str, str, bool]:
        return self.name, self.ear.exchange, self.ear.pattern, self.inbox

    def wants(self, number: int, inbox: bool, message: Broadcast) -> bool:
        if number <= self.seen or inbox != self.inbox:
            return False
        if inbox:
            return (message.exchange, message.routing_key) == (self.ear.exchange, self.ear.pattern)
        return self.ear.wants(message.exchange, message.routing_key)


class SQLiteBus:
    """All listeners share one reading task, which waits for a ring and runs only while somebody listens."""

    def __init__(
        self,
        database: Database,
        bell: doorbell.Doorbell,
        ringer: doorbell.Ringer,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._bell = bell
        self._ringer = ringer
        self._clock = clock
        self._listening: dict[str, _Listening] = {}
        self._reading: asyncio.Task[None] | None = None
        self._rung: Wakeup | None = None
        self._refreshed = 0.0

    def ring(self) -> None:
        if self._rung is not None:
            self._rung.set()

    async def close(self) -> None:
        """Wants the database to be open still."""
        names = list(self._listening)
        self._fail(BrokerUnavailable("The broker was closed; listen again once it is open."))
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        if names:
            await self._database.write(lambda connection: store.remove_ears(connection, names))

    async def publish(self, messages: Sequence[Broadcast]) -> list[int]:
        # The usual case, that nobody listens, takes no lock.
        if not await self._database.read(lambda connection: store.listening(connection, inbox=False)):
            return [0] * len(messages)
        now = self._clock()
        counts, _ = await self._database.write(
            lambda connection: store.publish(connection, messages, now),
            lambda result: self._ringer.ring(result[1], [RING]),
        )
        return counts

    async def answer(self, message: Broadcast, *, ttl: float) -> int:
        now = self._clock()
        count, _ = await self._database.write(
            lambda connection: store.answer(connection, message, now, ttl),
            lambda result: self._ringer.ring(result[1], [RING]),
        )
        return count

    def listen(self, exchange: str, pattern: str = "#") -> AbstractAsyncContextManager[Ear]:
        return self._open(exchange, pattern, inbox=False)

    def inbox(self, exchange: str, routing_key: str, *, ttl: float) -> AbstractAsyncContextManager[Ear]:
        return self._open(exchange, routing_key, inbox=True)

    @asynccontextmanager
    async def _open(self, exchange: str, pattern: str, *, inbox: bool) -> AsyncIterator[Ear]:
        listening = _Listening(secrets.token_hex(8), Ear(exchange, pattern), inbox, seen=0)
        try:
            await self._bell.announce([store.topic(exchange)])
            listening.seen = await self._database.write(lambda c: store.add_ears(c, [listening.row]))
            self._listening[listening.name] = listening
            if self._reading is None or self._reading.done():
                self._rung, self._refreshed = Wakeup(), time.monotonic()
                self._reading = asyncio.create_task(self._read(), name="aioretryq bus")
            # What was sent since the ear was added may have rung before anybody knew of it.
            self.ring()
            yield listening.ear
        finally:
            self._listening.pop(listening.name, None)
            with anyio.CancelScope(shield=True), suppress(BrokerUnavailable, BrokerError, NotOpenError):
                await self._database.write(lambda connection: store.remove_ears(connection, [listening.name]))

    async def _read(self) -> None:
        failure: BrokerUnavailable | BrokerError = BrokerUnavailable("Listening was broken off; listen again.")
        try:
            while self._listening:
                await self._read_on()
        except (BrokerUnavailable, BrokerError) as error:
            failure = error
        finally:
            if self._listening:
                self._fail(failure)

    async def _read_on(self) -> None:
        assert self._rung is not None
        self._rung.clear()
        everybody = list(self._listening.values())  # who comes while this reads has its turn next
        exchanges = sorted({listening.ear.exchange for listening in everybody})
        await self._bell.announce(map(store.topic, exchanges))
        await self._stay_registered()
        after = min(listening.seen for listening in everybody)
        now = self._clock()
        last, found = await self._database.read(
            lambda c: (store.last_number(c), store.broadcasts(c, exchanges, after, CHUNK, now))
        )
        for number, inbox, message in found:
            for listening in everybody:
                if listening.wants(number, inbox, message):
                    listening.ear.put(message)
        seen = found[-1][0] if len(found) == CHUNK else max([last, *(number for number, _, _ in found)])
        for listening in everybody:
            # Numbers go back when the file was replaced by a new one.
            listening.seen = max(listening.seen, seen) if last >= listening.seen else 0
        if len(found) < CHUNK:
            await self._rung.wait(self._bell.interval)

    async def _stay_registered(self) -> None:
        if time.monotonic() - self._refreshed < doorbell.REFRESH:
            return
        rows = [listening.row for listening in self._listening.values()]
        await self._database.write(lambda connection: store.add_ears(connection, rows))
        self._refreshed = time.monotonic()

    def _fail(self, error: BrokerUnavailable | BrokerError) -> None:
        for listening in self._listening.values():
            listening.ear.fail(error)
        self._listening.clear()
