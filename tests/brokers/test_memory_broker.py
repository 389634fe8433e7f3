"""The memory broker keeps the contract, and what only it promises."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid

import pytest

from aioretryq.brokers.memory import MemoryBroker
from aioretryq.config import Settings
from aioretryq.errors import NotOpenError
from aioretryq.message import Finish
from contracts.broker_contract import BrokerContract
from contracts.broker_world import LEASE, bodies, message, take, take_one, wait_and_take
from contracts.shifted_clock import ShiftedClock


class MemoryWorld(ShiftedClock):
    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        super().__init__()
        self._stack = stack
        self._name = uuid.uuid4().hex

    async def connect(self) -> MemoryBroker:
        broker = MemoryBroker(self._name, lease=LEASE, clock=self)
        return await self._stack.enter_async_context(broker)

    def now(self) -> float:
        return self()


@pytest.fixture
async def world():
    async with contextlib.AsyncExitStack() as stack:
        yield MemoryWorld(stack)


class TestMemoryBroker(BrokerContract):
    @pytest.fixture
    async def world(self, world):
        return world

    async def test_all_ten_priorities_differ(self, broker):
        await broker.send([message(str(p), priority=p) for p in reversed(range(10))])
        assert bodies(await take(broker)) == [str(p) for p in range(10)]

    async def test_a_tag_is_forgotten_after_a_minute(self, world, broker):
        sent = message("a")
        await broker.send([sent])
        await world.advance(61)
        await broker.send([sent])
        assert bodies(await take(broker)) == ["a", "a"]

    async def test_a_second_finish_is_refused(self, broker):
        await broker.send([message("a")])
        delivery = await take_one(broker)
        assert await broker.finish([Finish(delivery), Finish(delivery)]) == [True, False]
        assert await broker.finish([Finish(delivery)]) == [False]


def open_broker(url: str) -> MemoryBroker:
    return MemoryBroker.from_url(url, Settings())


async def test_brokers_of_one_name_share_their_messages():
    name = uuid.uuid4().hex
    async with open_broker(f"memory://{name}") as one, open_broker(f"memory://{name}") as two:
        await one.send([message("a")])
        assert bodies(await take(two)) == ["a"]


async def test_without_a_name_nothing_is_shared():
    async with open_broker("memory://") as one, open_broker("memory://") as two:
        await one.send([message("a")])
        assert await take(two) == []


async def test_a_twin_shares_even_without_a_name():
    broker = open_broker("memory://")
    async with broker, broker.twin() as twin, twin.twin() as second:
        await twin.send([message("a")])
        assert bodies(await take(broker)) == ["a"]
        await broker.send([message("b")])
        assert bodies(await take(second)) == ["b"]
        assert twin.display_url == broker.display_url


async def test_another_thread_wakes_a_waiter():
    name = uuid.uuid4().hex

    async def send() -> None:
        async with open_broker(f"memory://{name}") as other:
            await other.send([message("a")])

    async with open_broker(f"memory://{name}") as broker, asyncio.TaskGroup() as group:
        waiting = group.create_task(wait_and_take(broker))
        await broker.wait(["mail"], timeout=0.05)
        thread = threading.Thread(target=lambda: asyncio.run(send()))
        thread.start()
        await asyncio.to_thread(thread.join)
    assert bodies(waiting.result()) == ["a"]


async def test_a_broker_that_is_not_open_says_so():
    with pytest.raises(NotOpenError, match="async with"):
        await open_broker("memory://").send([message("a")])
