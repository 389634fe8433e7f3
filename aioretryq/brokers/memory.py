"""The broker for one process: tests, notebooks, and programs that want no files and no server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from aioretryq.brokers.memory_bus import MemoryBus
from aioretryq.brokers.memory_store import MemoryStore
from aioretryq.drivers.wakeup import Wakeup
from aioretryq.errors import NotOpenError
from aioretryq.message import Claim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from aioretryq.config import Settings
    from aioretryq.message import Binding, DeadEntry, Delivery, Finish, Outgoing

_stores: dict[str, MemoryStore] = {}


class MemoryBroker:
    """`memory://` keeps its messages to itself; all `memory://<name>` of a process share theirs."""

    def __init__(
        self,
        name: str = "",
        *,
        lease: float = 30.0,
        clock: Callable[[], float] = time.time,
        store: MemoryStore | None = None,
    ) -> None:
        self.display_url = f"memory://{name}"
        self._name = name
        self._store = store or (_stores.setdefault(name, MemoryStore()) if name else MemoryStore())
        self._lease = lease
        self._clock = clock
        self._open = False
        self._bus = MemoryBus(lambda: self._checked().exchanges)
        self._last_revocation = 0

    @classmethod
    def from_url(cls, url: str, settings: Settings) -> Self:
        return cls(url.partition("://")[2].strip("/"), lease=settings.lease)

    def twin(self) -> Self:
        return type(self)(self._name, lease=self._lease, clock=self._clock, store=self._store)

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._open = False
        self._bus.close()
        with self._store.lock:
            self._store.ring()

    async def send(self, messages: Sequence[Outgoing]) -> None:
        store = self._checked()
        with store.lock:
            store.send(messages, self._clock())
            store.ring()

    async def claim(self, queues: Sequence[str], *, limit: int) -> Claim:
        store, now = self._checked(), self._clock()
        with store.lock:
            deliveries = store.claim(queues, limit, now, self._lease) if limit > 0 else []
            revoked, self._last_revocation = store.revoked_since(self._last_revocation, now)
        return Claim(deliveries, revoked)

    async def wait(self, queues: Sequence[str], *, timeout: float) -> None:
        store, waiter = self._checked(), Wakeup()
        with store.lock:
            # Added in the same step as the look: what comes from now on rings.
            seconds = min(timeout, store.next_arrival(queues) - self._clock())
            if seconds <= 0:
                return
            store.waiters.add(waiter)
        try:
            await waiter.wait(seconds)
        finally:
            with store.lock:
                store.waiters.discard(waiter)

    def joins(self, backend: object) -> bool:
        return False  # nothing is gained: there is no way between the two

    async def finish(self, finishes: Sequence[Finish]) -> list[bool | None]:
        store, now = self._checked(), self._clock()
        with store.lock:
            done: list[bool | None] = [store.finish(finish, now) for finish in finishes]
            if any(finish.send for finish in finishes):
                store.ring()
        return done

    async def requeue(self, deliveries: Sequence[Delivery]) -> None:
        store = self._checked()
        with store.lock:
            store.requeue(delivery.tag for delivery in deliveries)
            store.ring()

    async def extend(self, deliveries: Sequence[Delivery]) -> list[bool]:
        store, until = self._checked(), self._clock() + self._lease
        with store.lock:
            return [store.extend(delivery.tag, until) for delivery in deliveries]

    async def recover(self, *, limit: int = 1000, worker: str = "", queues: Sequence[str] = ()) -> int:
        store = self._checked()
        with store.lock:
            count = store.recover(self._clock(), self._lease, limit)
            store.drop_expired(self._clock())
            if count:
                store.ring()
        return count

    async def revoke(self, notices: Sequence[str], *, ttl: float) -> None:
        store = self._checked()
        with store.lock:
            store.revoke(notices, self._clock(), ttl)
            store.ring()

    async def depth(self, queues: Sequence[str]) -> dict[str, int]:
        store = self._checked()
        with store.lock:
            return {name: store.depth(name) for name in queues}

    async def purge(self, queue: str) -> int:
        store = self._checked()
        with store.lock:
            return store.purge(queue)

    async def leave(self, worker: str, queues: Sequence[str]) -> list[str]:
        return []  # nobody else reads this process's memory

    async def parked(self, queues: Sequence[str] | None = None) -> dict[str, int]:
        store = self._checked()
        with store.lock:
            return store.parked(queues)

    async def unpark(self, queue: str, *, limit: int = 1000) -> int:
        store = self._checked()
        with store.lock:
            count = store.unpark(queue, limit)
            store.ring()
        return count

    def bus(self) -> MemoryBus:
        return self._bus

    async def bind(self, bindings: Sequence[Binding]) -> None:
        store = self._checked()
        with store.lock:
            store.exchanges.bind(bindings, self._clock())
            store.drop_expired(self._clock())

    async def unbind(self, bindings: Sequence[Binding]) -> None:
        store = self._checked()
        with store.lock:
            store.exchanges.unbind(bindings)

    async def bindings(self, exchange: str) -> list[Binding]:
        store = self._checked()
        with store.lock:
            return store.exchanges.bound(exchange, self._clock())

    async def bury(self, entries: Sequence[DeadEntry]) -> None:
        store = self._checked()
        with store.lock:
            for entry in entries:
                store.dead.bury(entry)

    async def dead(self, *, after: str = "", limit: int = 100) -> list[DeadEntry]:
        store = self._checked()
        with store.lock:
            return store.dead.page(after, limit)

    async def dead_entry(self, entry_id: str) -> bytes | None:
        store = self._checked()
        with store.lock:
            return store.dead.contents.get(entry_id)

    async def dead_count(self) -> int:
        store = self._checked()
        with store.lock:
            return len(store.dead.contents)

    async def exhume(self, taken: Sequence[tuple[str, Outgoing | None]]) -> list[bool]:
        store, now = self._checked(), self._clock()
        with store.lock:
            done = [store.exhume(entry_id, message, now) for entry_id, message in taken]
            store.ring()
        return done

    async def trim_dead(self, *, keep: int, before: str) -> int:
        store = self._checked()
        with store.lock:
            return store.dead.trim(keep, before)

    def _checked(self) -> MemoryStore:
        if not self._open:
            raise NotOpenError(f"The broker {self.display_url} is not open; use it inside `async with`.")
        return self._store
