"""The Redis backend keeps the contract, and Celery's keys and documents."""

from __future__ import annotations

import contextlib

import pytest
import redis

from aioretryq.backends.redis import RedisBackend
from aioretryq.config import Settings
from contracts.backend_contract import BackendContract


class RedisWorld:
    def __init__(self, stack: contextlib.AsyncExitStack, url: str) -> None:
        self._stack = stack
        self._url = url

    async def connect(self) -> RedisBackend:
        return await self._stack.enter_async_context(RedisBackend(self._url, Settings()))

    async def advance(self, seconds: float) -> None:
        with redis.Redis.from_url(self._url) as client:
            for key in client.scan_iter():
                left = client.pttl(key)
                if left >= 0:
                    client.pexpire(key, max(0, left - int(seconds * 1000)))


class TestContract(BackendContract):
    @pytest.fixture
    async def world(self, redis_url):
        async with contextlib.AsyncExitStack() as stack:
            yield RedisWorld(stack, redis_url)
