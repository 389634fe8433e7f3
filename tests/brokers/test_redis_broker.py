"""The Redis broker keeps the contract, kombu's layout, and its head when the server is in trouble."""

from __future__ import annotations

import contextlib
import time

import pytest
import redis
from contracts.broker_contract import BrokerContract
from contracts.broker_world import LEASE

from aioretryq.brokers.redis import RedisBroker
from aioretryq.config import Settings


class RedisWorld:
    """Time is the server's own: to let it pass, everything that is noted moves into the past."""

    def __init__(self, stack: contextlib.AsyncExitStack, url: str) -> None:
        self._stack = stack
        self._url = url

    async def connect(self) -> RedisBroker:
        settings = Settings()
        settings.lease = LEASE
        return await self._stack.enter_async_context(RedisBroker(self._url, settings))

    async def advance(self, seconds: float) -> None:
        with redis.Redis.from_url(self._url) as client:
            timed = [b"aioretryq.leases", b"aioretryq.revoked", *client.keys("aioretryq.schedule.*")]
            for key in timed:
                for member, score in client.zrange(key, 0, -1, withscores=True):
                    client.zadd(key, {member: score - seconds})

    def now(self) -> float:
        return time.time()


class TestContract(BrokerContract):
    @pytest.fixture
    async def world(self, redis_url):
        async with contextlib.AsyncExitStack() as stack:
            yield RedisWorld(stack, redis_url)
