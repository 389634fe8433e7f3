"""The broker is gone for a while: remote control comes back with it, and nothing that it was told is forgotten."""

from __future__ import annotations

import asyncio

import pytest
import redis
from control_lab import NODE, Lab

from aioretryq import BrokerUnavailable
from queues import soon
from redis_server import RedisServer


async def answers(lab, method="ping", /):
    async with asyncio.timeout(20):
        while True:
            try:
                replies = await lab.client.control.broadcast(method, timeout=1)
            except BrokerUnavailable:
                await asyncio.sleep(0.01)
                continue
            if replies:
                return replies[NODE]


@pytest.fixture
async def redis_lab(redis_url):
    async with Lab(redis_url).open() as lab:
        yield lab


async def test_connections_that_are_cut(redis_lab):
    await redis_lab.worker()
    await redis_lab.client.control.add_consumer("extra", timeout=15)
    await redis_lab.client.control.pool_shrink(90, timeout=15)
    for _ in range(3):
        with redis.Redis.from_url(redis_lab.url) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await answers(redis_lab) == {"ok": "pong"}
    assert [queue["name"] for queue in await answers(redis_lab, "active_queues")] == ["celery", "extra"]
    assert (await answers(redis_lab, "stats"))["pool"]["max-concurrency"] == 10
    assert await soon((await redis_lab.client.send_task("lab.add", [1, 2], queue="extra")).get()) == 3


async def test_a_server_that_comes_back_empty():
    server = RedisServer()
    server.start()
    try:
        async with Lab(server.url).open() as lab:
            await lab.worker()
            await lab.client.control.add_consumer("extra", timeout=15)
            server.stop()
            server.start()
            assert [queue["name"] for queue in await answers(lab, "active_queues")] == ["celery", "extra"]
            with redis.Redis.from_url(server.url) as client:
                client.flushall()
            assert await answers(lab) == {"ok": "pong"}
    finally:
        server.close()
