"""Who serves which queue: the last worker of one is told so when it leaves."""

from __future__ import annotations

import time

import pytest
from redis_world import open_broker

from aioretryq.brokers.redis_keys import SEP
from contracts.broker_world import LEASE, message


@pytest.fixture
async def broker(world):
    return await world.connect()


async def test_the_last_one_of_each_queue(world, broker):
    other = await world.connect()
    await broker.recover(worker="a", queues=["celery", "mail"])
    await other.recover(worker="b", queues=["celery"])
    assert await broker.leave("a", ["celery", "mail"]) == ["mail"]
    assert await other.leave("b", ["celery"]) == ["celery"]


async def test_all_that_stop_together_but_the_last_leave_it_to_the_others(broker):
    for name in "abc":
        await broker.recover(worker=name, queues=["celery"])
    assert [await broker.leave(name, ["celery"]) for name in "abc"] == [[], [], ["celery"]]


async def test_to_ask_is_not_to_leave(broker):
    await broker.recover(worker="a", queues=["celery"])
    assert await broker.leave("", ["celery", "mail"]) == ["mail"]
    assert await broker.leave("", ["celery"]) == []


async def test_who_has_not_swept_for_a_lease_is_gone(broker, server):
    await broker.recover(worker="crashed", queues=["celery"])
    await broker.recover(worker="a", queues=["celery"])
    server.zadd("aioretryq.workers", {f"crashed{SEP}celery": time.time() - LEASE - 1})
    assert await broker.leave("a", ["celery"]) == ["celery"]
    await broker.recover(worker="a", queues=["mail"])
    assert server.zrange("aioretryq.workers", 0, -1) == [f"a{SEP}mail"]
    assert 0 < server.ttl("aioretryq.workers") <= 8 * LEASE


async def test_the_names_of_queues_are_taken_as_they_are(redis_url):
    # As a prefix and in a pattern too.
    async with open_broker(redis_url, broker_transport_options={"global_keyprefix": "p[*]:"}) as broker:
        await broker.send([message("x", "q*?", due=time.time() + 600), message("y", "q", due=time.time() + 600)])
        assert await broker.parked() == {"q": 1, "q*?": 1}
        await broker.recover(worker="a b", queues=["q*?"])
        assert await broker.leave("", ["q*?", "q"]) == ["q"]


async def test_what_is_no_member_of_ours_stays_and_hides_nothing(broker, server):
    strange = [f"strange {n}" for n in range(250)] + ["0:99:x", "5:1:xy", "0:-1:x"]
    server.zadd("aioretryq.schedule.celery", dict.fromkeys(strange, 1))
    await broker.send([message("a", due=time.time() + 600)])
    assert await broker.unpark("celery") == 1
    assert sorted(server.zrange("aioretryq.schedule.celery", 0, -1)) == sorted(strange)
    assert server.lrange("celery", 0, -1) == ["a"]
