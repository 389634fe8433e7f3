"""A broker on a Redis server, and clients of that server to look at what is there."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import redis
from lossy_proxy import LossyProxy
from redis_world import RedisWorld, open_broker

import aioretryq.brokers
from aioretryq.drivers.redis_line import source_of

SCRIPTS = Path(aioretryq.brokers.__file__).parent / "lua"


@pytest.fixture
async def world(redis_url):
    async with contextlib.AsyncExitStack() as stack:
        yield RedisWorld(stack, redis_url)


@pytest.fixture
async def broker(redis_url):
    async with open_broker(redis_url) as broker:
        yield broker


@pytest.fixture
def server(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def server_of_bytes(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def proxy(redis_server, redis_url):
    with redis.Redis.from_url(redis_url) as client:
        for script in SCRIPTS.glob("*.lua"):  # a reply that one is unknown would be lost in its place
            client.script_load(source_of("aioretryq.brokers", script.stem))
    async with LossyProxy(redis_server.port) as proxy:
        yield proxy
