"""A key that is no queue: somebody else's mistake, which the worker outlives."""

from __future__ import annotations

import logging

import pytest
import redis

from aioretryq import BrokerError, TaskQueue, Worker
from aioretryq.worker import fetcher
from queues import soon, until

LEFT_OUT = "Nothing is taken from queue 'other'"


@pytest.fixture
def server(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def queue(redis_url):
    queue = TaskQueue(redis_url)
    queue.task(name="add")(lambda x, y: x + y)
    async with queue:
        yield queue


def add(queue, *args, to="celery"):
    return queue.tasks["add"].apply_async(args, queue=to)


@pytest.mark.parametrize("running", [True, False])
async def test_the_other_queues_go_on(queue, server, caplog, monkeypatch, running):
    monkeypatch.setattr(fetcher, "REFUSED", 0.2)
    if not running:
        server.hset("other", "1", "1")
    async with Worker(queue, queues=["other", "celery"]).running() as worker:
        if running:
            assert await soon((await add(queue, 1, 2, to="other")).get()) == 3
            server.hset("other", "1", "1")
        await until(lambda: LEFT_OUT in caplog.text)
        assert await soon((await add(queue, 3, 4)).get()) == 7
        server.delete("other")
        assert await soon((await add(queue, 5, 6, to="other")).get()) == 11
        assert not worker.stopping
    assert "WRONGTYPE" in caplog.text


async def test_the_only_queue_becomes_something_else(queue, server, caplog, monkeypatch):
    monkeypatch.setattr(fetcher, "REFUSED", 0.2)
    async with Worker(queue, queues=["other"]).running():
        assert await soon((await add(queue, 1, 2, to="other")).get()) == 3
        server.hset("other", "1", "1")
        await until(lambda: LEFT_OUT in caplog.text)
        server.delete("other")
        assert await soon((await add(queue, 5, 6, to="other")).get()) == 11


async def test_it_is_told_once_a_minute(queue, server, caplog):
    server.hset("other", "1", "1")
    async with Worker(queue, queues=["other", "celery"]).running():
        for _ in range(20):
            assert await soon((await add(queue, 3, 4)).get()) == 7
    assert caplog.text.count(LEFT_OUT) == 1


async def test_a_worker_that_has_nothing_else_does_not_start(queue, server):
    server.hset("other", "1", "1")
    with pytest.raises(ExceptionGroup) as caught:
        await soon(Worker(queue, queues=["other"]).run())
    assert caught.group_contains(BrokerError, match="WRONGTYPE")


async def test_what_is_in_the_keys_of_revocations_and_is_no_text(queue, server, caplog):
    caplog.set_level(logging.INFO)
    for key, score in (("aioretryq.revocations", 1), ("aioretryq.revoked", 2**40)):
        server.zadd(key, {b"\xff\xfe": score})
    revoked = await add(queue, 1, 2, to="other")
    await revoked.revoke()
    async with Worker(queue, queues=["celery", "other"]).running():
        assert await soon((await add(queue, 3, 4)).get()) == 7
        await until(lambda: "was not run to its end: revoked" in caplog.text)
    assert caplog.text.count("are no text and ignored") == 1
