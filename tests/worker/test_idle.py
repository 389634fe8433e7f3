"""What a worker asks of Redis while there is nothing to do, and how it hears that there is something."""

from __future__ import annotations

import asyncio

import pytest
import redis

from aioretryq import TaskQueue, Worker
from queues import soon, until

SECONDS = 8.0


@pytest.fixture
def server(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def queue(redis_url):
    queue = TaskQueue(redis_url, result_backend=redis_url)

    @queue.task
    async def add(a, b):
        return a + b

    async with queue:
        yield queue


def asked(server: redis.Redis) -> dict[str, int]:
    """How often each command was called, those inside of scripts included."""
    stats = server.info("commandstats")
    ours = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
    return {name: count for name, count in ours.items() if name not in ("info", "config|resetstat")}


async def watching(server: redis.Redis) -> None:
    """Until the worker waits: four lists, a schedule and the revocations."""
    await until(lambda: server.info("stats")["tracking_total_keys"] >= 6)


async def test_an_idle_worker_asks_little(queue, server):
    async with Worker(queue).running():
        assert await soon((await queue.tasks["test_idle.add"].delay(1, 2)).get()) == 3
        await watching(server)
        await asyncio.sleep(2.5)  # what it asks of the others when it starts
        server.config_resetstat()
        await asyncio.sleep(SECONDS)
        found = asked(server)
    # Two sweeps of six or seven commands at most, four or five heartbeats, and now and then a look.
    assert sum(found.values()) <= 2 * SECONDS + 6, found
    assert "ltrim" not in found


async def test_idle_workers_have_few_connections(queue, server):
    async with Worker(queue).running():
        await watching(server)
        names = [client["name"] for client in server.client_list()]
        assert names.count("aioretryq:wait") == 1
        assert len([name for name in names if name.startswith("aioretryq")]) <= 7


async def test_what_came_while_the_watch_was_cut_is_found(queue, server):
    """The news of it is lost: the worker looks when it has connected again."""
    add = queue.tasks["test_idle.add"]
    async with Worker(queue).running():
        for number in range(3):
            await watching(server)
            (watch,) = [client for client in server.client_list() if client["name"] == "aioretryq:wait"]
            server.client_kill_filter(_id=watch["id"])
            result = await add.apply_async((number, 1), countdown=0.1 * number)
            assert await soon(result.get()) == number + 1
