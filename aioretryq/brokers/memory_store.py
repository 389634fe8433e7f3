"""What the memory brokers of one name share: queues, leases, dead letters, exchanges."""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from aioretryq.brokers.memory_bus import Exchanges
from aioretryq.brokers.parking import as_not_parked
from aioretryq.brokers.sweep import Sweeps, sweep
from aioretryq.message import DeadEntry, Delivery

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from aioretryq.drivers.wakeup import Wakeup
    from aioretryq.message import Finish, Outgoing

TAG_MEMORY = 60.0
"""Seconds for which a tag that was sent is known."""


class _Message(Struct, frozen=True):
    queue: str
    body: bytes
    priority: int
    redelivered: bool = False
    deliveries: int = 0
    """Those that have ended without a finish."""
    interruptions: int = 0


@dataclass(slots=True)
class _Held:
    message: _Message
    until: float


class _Queue:
    """The messages of one queue: a lane for each priority, and those that are parked."""

    def __init__(self) -> None:
        self.lanes: dict[int, deque[_Message]] = {}
        self.parked: list[tuple[float, int, _Message]] = []
        self._order = itertools.count()

    def append(self, message: _Message) -> None:
        self.lanes.setdefault(message.priority, deque()).append(message)

    def prepend(self, message: _Message) -> None:
        self.lanes.setdefault(message.priority, deque()).appendleft(message)

    def park(self, message: _Message, due: float) -> None:
        heapq.heappush(self.parked, (due, next(self._order), message))

    def admit_due(self, now: float) -> None:
        while self.parked and self.parked[0][0] <= now:
            self.append(heapq.heappop(self.parked)[2])

    def unpark(self, limit: int) -> int:
        count = min(max(limit, 0), len(self.parked))
        for _ in range(count):
            _, _, message = heapq.heappop(self.parked)
            self.append(replace(message, body=as_not_parked(message.body)))
        return count

    def pop(self, priority: int, limit: int) -> Iterator[_Message]:
        lane = self.lanes.get(priority, deque())
        for _ in range(min(limit, len(lane))):
            yield lane.popleft()
        if not lane:
            self.lanes.pop(priority, None)

    def next_arrival(self) -> float:
        if self.lanes:
            return -math.inf
        return self.parked[0][0] if self.parked else math.inf

    def __len__(self) -> int:
        return len(self.parked) + sum(map(len, self.lanes.values()))


class _DeadLetters:
    """The dead letters, in the order of their ids."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self.contents: dict[str, bytes] = {}

    def bury(self, entry: DeadEntry) -> None:
        if entry.id not in self.contents:
            bisect.insort(self._ids, entry.id)
            self.contents[entry.id] = entry.content

    def page(self, after: str, limit: int) -> list[DeadEntry]:
        start = bisect.bisect_right(self._ids, after)
        return [DeadEntry(found, self.contents[found]) for found in self._ids[start : start + limit]]

    def remove(self, entry_id: str) -> bool:
        if self.contents.pop(entry_id, None) is None:
            return False
        del self._ids[bisect.bisect_left(self._ids, entry_id)]
        return True

    def trim(self, keep: int, before: str) -> int:
        count = max(bisect.bisect_left(self._ids, before), len(self._ids) - keep)
        for entry_id in self._ids[:count]:
            del self.contents[entry_id]
        del self._ids[:count]
        return count


class MemoryStore:
    """What the brokers of one name share. Every method is one atomic step, in whatever thread it is called."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.dead = _DeadLetters()
        self.exchanges = Exchanges()
        self.waiters: set[Wakeup] = set()
        self._queues: dict[str, _Queue] = {}
        self._held: dict[str, _Held] = {}
        self._sent: dict[str, float] = {}
        self._revoked: dict[int, tuple[str, float]] = {}
        self._numbers = itertools.count(1)
        self._last_revocation = 0
        self._sweeps = Sweeps()

    def send(self, messages: Iterable[Outgoing], now: float) -> None:
        # Tags expire in the order they came, so only the oldest need a look.
        while self._sent and next(iter(self._sent.values())) <= now:
            del self._sent[next(iter(self._sent))]
        for outgoing in messages:
            if outgoing.tag in self._sent:
                continue
            self._sent[outgoing.tag] = now + TAG_MEMORY
            counts = outgoing.deliveries, outgoing.interruptions
            message = _Message(outgoing.queue, outgoing.body, outgoing.priority, any(counts), *counts)
            if outgoing.due is None:
                self._queue(outgoing.queue).append(message)
            else:
                self._queue(outgoing.queue).park(message, outgoing.due)

    def claim(self, names: Sequence[str], limit: int, now: float, lease: float) -> list[Delivery]:
        queues = [self._queues[name] for name in names if name in self._queues]
        for queue in queues:
            queue.admit_due(now)
        taken: list[_Message] = []
        for priority in sorted({priority for queue in queues for priority in queue.lanes}):
            for queue in queues:
                taken.extend(queue.pop(priority, limit - len(taken)))
        return [self._hold(message, now + lease) for message in taken]

    def _hold(self, message: _Message, until: float) -> Delivery:
        tag = str(next(self._numbers))
        self._held[tag] = _Held(message, until)
        return Delivery(
            message.queue,
            message.body,
            tag,
            message.priority,
            message.redelivered,
            message.deliveries + 1,
            message.interruptions,
        )

    def finish(self, finish: Finish, now: float) -> bool:
        if finish.delivery is not None and self._held.pop(finish.delivery.tag, None) is None:
            return False
        self.send(finish.send, now)
        if finish.dead is not None:
            self.dead.bury(finish.dead)
        return True

    def requeue(self, tags: Iterable[str]) -> None:
        self._put_back(tags, interruptions=1)

    def recover(self, now: float, lease: float, limit: int) -> int:
        allowed, self._sweeps = sweep(self._sweeps, now, lease)
        ended = (tag for tag, held in self._held.items() if held.until <= now)
        return self._put_back(list(itertools.islice(ended, limit)), deliveries=1) if allowed else 0

    def _put_back(self, tags: Iterable[str], *, deliveries: int = 0, interruptions: int = 0) -> int:
        held = [found.message for tag in tags if (found := self._held.pop(tag, None))]
        for message in reversed(held):
            again = replace(
                message,
                redelivered=True,
                deliveries=message.deliveries + deliveries,
                interruptions=message.interruptions + interruptions,
            )
            self._queue(message.queue).prepend(again)
        return len(held)

    def extend(self, tag: str, until: float) -> bool:
        held = self._held.get(tag)
        if held is not None:
            held.until = until
        return held is not None

    def exhume(self, entry_id: str, message: Outgoing | None, now: float) -> bool:
        found = self.dead.remove(entry_id)
        if found and message is not None:
            self.send([message], now)
        return found

    def revoke(self, notices: Iterable[str], now: float, ttl: float) -> None:
        self._revoked = {number: entry for number, entry in self._revoked.items() if entry[1] > now}
        for notice in notices:
            self._last_revocation += 1
            self._revoked[self._last_revocation] = (notice, now + ttl)

    def revoked_since(self, number: int, now: float) -> tuple[list[str], int]:
        if number == self._last_revocation:
            return [], number
        fresh = [notice for n, (notice, until) in self._revoked.items() if n > number and until > now]
        return fresh, self._last_revocation

    def depth(self, name: str) -> int:
        return len(self._queues.get(name, ()))

    def parked(self, names: Iterable[str] | None) -> dict[str, int]:
        if names is None:
            return {name: len(queue.parked) for name, queue in self._queues.items() if queue.parked}
        return {name: len(self._queues[name].parked) if name in self._queues else 0 for name in names}

    def unpark(self, name: str, limit: int) -> int:
        return self._queues[name].unpark(limit) if name in self._queues else 0

    def purge(self, name: str) -> int:
        return len(self._queues.pop(name, ()))

    def drop_expired(self, now: float) -> None:
        for name in self.exchanges.drop_expired(now):
            self.purge(name)

    def next_arrival(self, names: Iterable[str]) -> float:
        """When a claim may find something: -inf for now, inf for nobody knows."""
        return min((self._queues[name].next_arrival() for name in names if name in self._queues), default=math.inf)

    def ring(self) -> None:
        for waiter in tuple(self.waiters):
            waiter.set()

    def _queue(self, name: str) -> _Queue:
        return self._queues.setdefault(name, _Queue())
