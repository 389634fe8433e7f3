"""The world that the broker contracts run in, and the few words they are written in."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Protocol

from aioretryq.message import Delivery, Outgoing

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
        """Let `seconds` pass for leases, parked messages and revocations."""
        ...

    def now(self) -> float:
        """The time that `Outgoing.due` is measured against, in unix seconds."""
        ...


def message(body: bytes | str, queue: str = "celery", *, priority: int = 0, due: float | None = None) -> Outgoing:
    raw = body.encode() if isinstance(body, str) else body
    return Outgoing(queue, raw, f"tag-{next(_numbers)}", priority, due)


def envelope(name: str) -> bytes:
    """The least that looks like a Celery message: adapters may keep the redelivered mark inside of it."""
    properties = {"delivery_tag": name, "delivery_info": {"exchange": "", "routing_key": "celery"}, "priority": 0}
    return json.dumps({"body": name, "headers": {}, "properties": properties}).encode()


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
