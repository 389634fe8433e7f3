"""Sends events in the background: whoever has one hands it in and goes on."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from aioretryq.calling import ORIGIN
from aioretryq.drivers.wakeup import Wakeup
from aioretryq.errors import BrokerError, BrokerUnavailable, EncodeError
from aioretryq.message import Broadcast
from aioretryq.outage import Outage
from aioretryq.protocol.event import encode_event, encode_events, routing_key
from aioretryq.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aioretryq.brokers.base import Bus
    from aioretryq.config import Settings
    from aioretryq.message import TaskMessage
    from aioretryq.protocol.clock import Clock

TASKS = "task.multi"
"""Routing key of a list of events of tasks."""

TOGETHER = 100
"""Events of tasks in one message, at most."""

LARGEST = 2**18
"""Bytes of events in one message, unless one alone is larger."""

ROUND = 2**20
"""Bytes of events in one round trip."""

PAUSE = 0.05
"""Seconds after a round trip in which events gather for the next one: a busy worker sends twenty messages a second,
not thousands. The first event after a quiet time goes out at once."""


@dataclass(slots=True)
class _Parcel:
    """Events that travel in one message: those of tasks together, others alone."""

    kind: str
    hostname: str
    events: list[bytes]
    size: int

    def add(self, kind: str, hostname: str, data: bytes) -> bool:
        """Whether there was room for it, and it belongs to the others."""
        fits = len(self.events) < TOGETHER and self.size + len(data) <= LARGEST
        if not fits or hostname != self.hostname or not (kind.startswith("task-") and self.kind.startswith("task-")):
            return False
        self.events.append(data)
        self.size += len(data)
        return True

    def message(self, exchange: str) -> Broadcast:
        key = routing_key(self.kind) if len(self.events) == 1 else TASKS
        return Broadcast(
            exchange, key, encode_events(self.events, hostname=self.hostname, exchange=exchange, key=key)
        )


class EventSender:
    """Keeps at most `event_buffer_bytes` of events; the oldest are dropped, and counted, when there are more.

    `run()` must be running in a task that somebody owns. Outages are waited for, with what is in the buffer.
    """

    def __init__(self, bus: Bus, where: str, settings: Settings, clock: Clock) -> None:
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._outage = Outage(f"Broker {where} (events)", quiet=True)  # a second view on it
        self._dropped = Tally("%d events were not sent: %s")
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, str, bytes]] = deque()
        self._size = 0
        self._on_its_way = 0  # events
        self.stuck = False
        """Whether the broker has not taken what was sent last: it is tried again until it does."""
        self._bell = Wakeup()
        self._hurry = asyncio.Event()
        self._settled = asyncio.Event()
        self._utcoffset = utcoffset()
        self._pid = os.getpid()

    @property
    def dropped(self) -> int:
        """How many events were not sent."""
        return self._dropped.total

    def send(self, kind: str, hostname: str, fields: Mapping[str, Any]) -> None:
        """Send it soon, or not at all; never waits. Any thread may call it.

        Raises EncodeError for fields that cannot be sent.
        """
        event = {
            **fields,
            "hostname": hostname,
            "utcoffset": self._utcoffset,
            "pid": self._pid,
            "clock": self._clock.forward(),
            "timestamp": time.time(),
            "type": kind,
        }
        data = encode_event(event)
        with self._lock:
            self._waiting.append((kind, hostname, data))
            self._size += len(data)
            lost = self._drop_oldest() if self._size > self._settings.event_buffer_bytes else 0
        if lost:
            self._dropped.add("event_buffer_bytes are full", lost)
        if not self._bell.is_set():
            self._bell.set()

    def sent(self, message: TaskMessage) -> None:
        """A task was sent from here."""
        fields = {
            "uuid": message.id,
            "root_id": message.root_id,
            "parent_id": message.parent_id,
            "name": message.task,
            "args": message.argsrepr,
            "kwargs": message.kwargsrepr,
            "retries": message.retries,
            "eta": message.eta,
            "expires": message.expires,
            "queue": message.routing_key,
            "exchange": message.exchange,
            "routing_key": message.routing_key,
        }
        try:
            self.send("task-sent", ORIGIN, fields)
        except EncodeError as error:
            self._dropped.add(str(error))

    def drop(self, why: str) -> None:
        """Count one that could not even be handed in."""
        self._dropped.add(why)

    def _drop_oldest(self) -> int:
        lost = 0
        while self._size > self._settings.event_buffer_bytes and self._waiting:
            self._size -= len(self._waiting.popleft()[2])
            lost += 1
        return lost

    async def flush(self, timeout: float) -> None:
        """Wait until everything is sent, at most `timeout` seconds."""
        with anyio.move_on_after(timeout):
            while self._waiting or self._on_its_way:
                self._settled.clear()
                self._hurry.set()
                await self._settled.wait()

    async def run(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            self._utcoffset = utcoffset()
            while messages := self._take():
                await self._publish(messages)
            self._settled.set()
            with anyio.move_on_after(PAUSE):
                await self._hurry.wait()
            self._hurry.clear()

    async def _publish(self, messages: list[Broadcast]) -> None:
        try:
            await self._outage.survive(lambda: self._attempt(messages))
        except BrokerError as error:
            self._dropped.add(str(error), self._on_its_way)
        finally:
            self._on_its_way = 0

    async def _attempt(self, messages: list[Broadcast]) -> None:
        try:
            await self._bus.publish(messages)
        except BrokerUnavailable:
            self.stuck = True
            raise
        self.stuck = False

    def _take(self) -> list[Broadcast]:
        parcels: list[_Parcel] = []
        size = 0
        with self._lock:
            while self._waiting and size < ROUND:
                kind, hostname, data = self._waiting.popleft()
                size += len(data)
                self._on_its_way += 1
                if not parcels or not parcels[-1].add(kind, hostname, data):
                    parcels.append(_Parcel(kind, hostname, [data], len(data)))
            self._size -= size
        return [parcel.message(self._settings.event_exchange) for parcel in parcels]


def utcoffset() -> float:
    """Hours west of UTC, as events tell them."""
    return (time.altzone if time.localtime().tm_isdst > 0 else time.timezone) / 3600
