"""The contracts of the bus and of bindings, on every broker."""

from __future__ import annotations

import contextlib

import pytest
import redis
from redis_world import RedisWorld

from aioretryq.brokers.memory import MemoryBroker
from aioretryq.brokers.sqlite import SQLiteBroker
from contracts.bindings_contract import BindingsContract
from contracts.broker_world import LEASE
from contracts.bus_contract import BusContract
from contracts.shifted_clock import ShiftedClock
from contracts.sqlite_world import SQLiteWorld


class MemoryBusWorld(ShiftedClock):
    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        super().__init__()
        self._stack = stack
        self._first = MemoryBroker(lease=LEASE, clock=self)

    async def connect(self) -> MemoryBroker:
        return await self._stack.enter_async_context(self._first.twin())

    async def pass_time(self, broker: MemoryBroker, seconds: float) -> None:
        await self.advance(seconds)
        await broker.recover()

    def now(self) -> float:
        return self()


class SQLiteBusWorld(SQLiteWorld):
    async def connect(self) -> SQLiteBroker:
        return await self.broker()

    async def pass_time(self, broker: SQLiteBroker, seconds: float) -> None:
        await self.advance(seconds)
        await broker.recover()


class RedisBusWorld(RedisWorld):
    async def pass_time(self, broker: object, seconds: float) -> None:
        with redis.Redis.from_url(self._url) as client:
            for key in ("aioretryq.expiring", "_kombu.binding_deadlines"):
                for member, score in client.zrange(key, 0, -1, withscores=True):
                    client.zadd(key, {member: score - seconds * 1000})
        # Each broker looks for expired queues only now and then; a new one has not done so yet.
        await (await self.connect()).recover()


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def world(request, tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        match request.param:
            case "memory":
                yield MemoryBusWorld(stack)
            case "sqlite":
                yield SQLiteBusWorld(stack, tmp_path)
            case "redis":
                yield RedisBusWorld(stack, request.getfixturevalue("redis_url"))


class TestBus(BusContract):
    @pytest.fixture
    async def world(self, world):
        return world


class TestBindings(BindingsContract):
    @pytest.fixture
    async def world(self, world):
        return world
