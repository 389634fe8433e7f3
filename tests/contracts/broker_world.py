"""The world that the broker contracts run in, and the few words they are written in."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Protocol

from aioretryq.message import DeadEntry, Delivery, Outgoing
from aioretryq.protocol.deadletter import entry_id
from aioretryq.protocol.envelope import Envelope, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.brokers.base import Broker

LEASE = 30.0
"""The lease, in seconds, of every broker that `World.connect` returns."""

_numbers = itertools.count()


class World(Protocol):
    """One store and its time. Each `connect()` is a process of its own; teardown closes them all."""

    async def connect(self) -> Broker:
        """A new, connected broker on the store, with the lease `LEASE`."""
        ...

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass for leases, sweeps, parked messages and revocations; back when negative.

        Where the server keeps the time, that means to rewrite what it has noted; of sweeps on Redis these are the
        fields `last` and `quiet_until` of the hash `aioretryq.sweep`, in unix seconds.
        """
        ...

    def now(self) -> float:
        """The time that `Outgoing.due` is measured against, in unix seconds."""
        ...


def message(body: bytes | str, queue: str = "celery", *, priority: int = 0, due: float | None = None) -> Outgoing:
    raw = body.encode() if isinstance(body, str) else body
    return Outgoing(queue, raw, f"tag-{next(_numbers)}", priority, due)


def envelope(name: str) -> bytes:
    """A task message as it travels: adapters may keep the redelivered mark and the counters inside of it."""
    properties = {"delivery_tag": name, "delivery_info": {"exchange": "", "routing_key": "celery"}, "priority": 0}
    headers = {"task": "tasks.add", "id": name, "lang": "py"}
    return encode(Envelope(b"[[1, 2], {}, {}]", headers=headers, properties=properties))


def dead_entry(time: float, content: bytes = b"dead") -> DeadEntry:
    return DeadEntry(entry_id(time, str(next(_numbers))), content)


async def take(broker: Broker, *queues: str, limit: int = 100) -> list[Delivery]:
    return (await broker.claim(queues or ("celery",), limit=limit)).deliveries


async def take_one(broker: Broker, *queues: str) -> Delivery:
    (delivery,) = await take(broker, *queues, limit=1)
    return delivery


def bodies(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.body.decode() for delivery in deliveries]


async def wait_and_take(broker: Broker, *queues: str) -> list[Delivery]:
    """Claims until something comes. The waits are far longer than the deadline: a deaf one fails here."""
    async with asyncio.timeout(10):
        while not (found := await take(broker, *queues)):
            await broker.wait(queues or ("celery",), timeout=60)
    return found


async def sweeps(world: World, broker: Broker, seconds: float) -> int:
    """Let time pass while `broker` sweeps as often as somebody should; returns how many it has put back."""
    count = await broker.recover()
    while seconds > 0:
        step = min(seconds, LEASE / 5)
        seconds -= step
        await world.advance(step)
        count += await broker.recover()
    return count


async def leases_end(world: World, broker: Broker) -> None:
    """Let all leases end, with sweeps up to shortly before, so that the next one finds them and is not late."""
    assert await sweeps(world, broker, LEASE * 0.8) == 0
    await world.advance(LEASE * 0.3)
