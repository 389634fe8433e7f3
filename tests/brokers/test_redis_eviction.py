"""A full Redis server that evicts keys: what it throws away is told of, and nothing else suffers."""

from __future__ import annotations

import pytest
from lossy_proxy import LossyProxy, lose_reply
from redis_world import open_broker, task_message

from aioretryq import states
from aioretryq.backends.redis import RedisBackend
from aioretryq.brokers.redis_keys import LARGE
from aioretryq.config import Settings
from aioretryq.message import Finish, StoredResult
from aioretryq.protocol.result import ResultDocument, encode_result
from contracts.broker_world import LEASE, message, take, take_one

MIB = 2**20


@pytest.fixture
def server(server_of_bytes):
    return server_of_bytes


@pytest.fixture
def full(server):
    """Of old results, which it evicts."""

    def fill(policy):
        server.config_set("maxmemory", 30 * MIB)
        server.config_set("maxmemory-policy", policy)
        for number in range(40):
            server.set(f"celery-task-meta-old-{number}", "x" * MIB, ex=3600)
        assert server.info("stats")["evicted_keys"] > 0

    yield fill
    server.config_set("maxmemory", 0)
    server.config_set("maxmemory-policy", "noeviction")
    server.flushall()


def large(name: str) -> bytes:
    return task_message(name) + b" " * LARGE


def result(task_id: str) -> StoredResult:
    document = ResultDocument(task_id=task_id, status=states.SUCCESS, result="x" * 900_000)
    return StoredResult(task_id, states.SUCCESS, encode_result(document), 7200.0)


@pytest.mark.parametrize("policy", ["volatile-ttl", "volatile-lru"])
async def test_large_results_are_stored_at_the_first_attempt(redis_url, full, server, policy):
    async with open_broker(redis_url) as broker, RedisBackend(redis_url, Settings()) as backend:
        assert broker.joins(backend)
        names = [str(number) for number in range(10)]
        for attempt in range(4):
            await broker.send([message(name) for name in names])
            held = await take(broker)
            if not attempt:
                full(policy)
            after = (message("after", "other"),)
            finishes = [
                Finish(each, after, result=result(f"{attempt}-{name}"))
                for name, each in zip(names, held, strict=True)
            ]
            assert await broker.finish(finishes) == [True] * len(names)
            assert await broker.depth(["other"]) == {"other": 10 * (attempt + 1)}
        assert await backend.fetch(["3-9"]) == [result("3-9").document]


def evict(server):
    server.delete(*server.keys("aioretryq.leases.*"))


async def test_a_large_message_that_is_gone_is_told_of_and_forgotten(world, server, caplog):
    broker = await world.connect()
    await broker.send([message(large("a")), message(task_message("b"))])
    held, _ = await take(broker)
    evict(server)
    await broker.recover()
    recovered = 0
    for _ in range(8):
        await world.advance(LEASE / 4)
        recovered += await broker.recover()
    assert recovered == 1
    assert server.hlen("unacked") == server.zcard("aioretryq.leases") == 0
    (told,) = [record for record in caplog.records if held.tag in record.getMessage()]
    assert told.levelname == "ERROR"
    assert "noeviction" in told.getMessage()
    assert "unreadable" not in caplog.text


async def test_who_still_holds_one_that_is_gone_may_finish_it(world, server, caplog):
    broker = await world.connect()
    await broker.send([message(large("a"))])
    held = await take_one(broker)
    evict(server)
    await broker.recover()
    for _ in range(5):
        await world.advance(LEASE / 4)
        assert await broker.extend([held]) == [True]
        assert await broker.recover() == 0
    assert await broker.finish([Finish(held)]) == [True]
    assert not caplog.records


async def test_of_a_claim_whose_reply_was_lost_it_does_not_come_back_as_null(redis_server, redis_url, server):
    async with LossyProxy(redis_server.port) as proxy, open_broker(proxy.url) as broker:
        await broker.send([message(large("a")), message(task_message("b"))])
        await take(broker, limit=0)
        await lose_reply(proxy, take(broker))
        evict(server)
        assert [delivery.body for delivery in await take(broker)] == [task_message("b")]
    assert server.zcard("aioretryq.leases") == server.hlen("unacked") == 2, "recovery tells of the one that is gone"


async def test_one_that_says_null_is_a_message(redis_server, redis_url):
    async with LossyProxy(redis_server.port) as proxy, open_broker(proxy.url) as broker:
        await broker.send([message("null")])
        await take(broker, limit=0)
        await lose_reply(proxy, take(broker))
        assert [delivery.body for delivery in await take(broker)] == [b"null"]
