"""What waits for a listener is bounded, and may come from any thread."""

from __future__ import annotations

import asyncio
import threading

import pytest

from aioretryq.brokers.ears import Ear
from aioretryq.brokers.memory import MemoryBroker
from aioretryq.errors import BrokerUnavailable
from aioretryq.message import Broadcast
from contracts.bus_contract import receive

KEPT = 10_000


async def test_the_oldest_are_dropped_and_counted():
    ear = Ear("news", "#", memory=KEPT)
    for n in range(100):
        ear.put(Broadcast("news", "", b"%04d" % n + b"x" * 996))
    heard = await ear.receive()
    assert len(heard) == KEPT // 1400
    assert heard[-1].body.startswith(b"0099")
    assert ear.dropped + len(heard) == 100
    ear.put(Broadcast("news", "", b"next"))
    assert [each.body for each in await ear.receive()] == [b"next"]


async def test_very_many_tiny_ones_are_bounded_too():
    ear = Ear("news", "#", memory=KEPT)
    for _ in range(1000):
        ear.put(Broadcast("news", "", b""))
    assert len(await ear.receive()) == KEPT // 400


async def test_one_that_is_larger_than_all_is_heard():
    ear = Ear("news", "#", memory=KEPT)
    ear.put(Broadcast("news", "", b"x" * 2 * KEPT))
    assert len(await ear.receive()) == 1


async def test_what_was_heard_comes_before_the_failure():
    ear = Ear("news", "#")
    ear.put(message := Broadcast("news", "", b"1"))
    ear.fail(BrokerUnavailable("first"))
    ear.fail(BrokerUnavailable("second"))
    assert await ear.receive() == [message]
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="first"):
            await ear.receive()


async def test_threads():
    """Brokers of one name in several threads, each with an event loop: nothing is lost, nobody stays deaf."""
    shared = MemoryBroker()
    threads, count = 4, 200

    async def publish() -> None:
        async with shared.twin() as broker:
            for n in range(count):
                await broker.bus().publish([Broadcast("news", "", b"%d" % n)])
                await asyncio.sleep(0)

    async with shared, shared.bus().listen("news") as listener:
        running = [threading.Thread(target=asyncio.run, args=(publish(),)) for _ in range(threads)]
        for thread in running:
            thread.start()
        heard = await receive(listener, threads * count)
        for thread in running:
            thread.join()
    assert sorted(each.body for each in heard) == sorted(b"%d" % n for n in range(count) for _ in range(threads))
