"""What others may have put into the keys that we share: it hinders nobody."""

from __future__ import annotations

import pytest
from redis_world import open_broker, task_message

from aioretryq.message import DeadEntry, Outgoing


@pytest.fixture
def server(server_of_bytes):
    return server_of_bytes


async def test_nothing_is_taken_before_all_revocations_are_read(broker):
    ids = [str(number) for number in range(2500)]
    await broker.revoke(ids, ttl=60)
    await broker.send([Outgoing("celery", task_message(), "tag")])
    read, claims = [], 0
    while True:
        claim = await broker.claim(["celery"], limit=5)
        claims += 1
        read += claim.revoked
        if claim.deliveries:
            break
        await broker.wait(["celery"], timeout=60)
    assert read == ids
    assert claims == 3


async def test_revocations_that_are_no_text(broker, server, caplog):
    for key, score in (("aioretryq.revocations", 1), ("aioretryq.revoked", 2**40)):
        server.zadd(key, {b"\xff": score, b"\xfe": score + 1})
    await broker.revoke(["a"], ttl=60)
    assert (await broker.claim(["celery"], limit=1)).revoked == ["a"]
    assert (await broker.claim(["celery"], limit=1)).revoked == []
    assert caplog.text.count("are no text and ignored") == 1


async def test_dead_letters_whose_ids_are_no_text(broker, server, caplog):
    await broker.bury([DeadEntry(name, b"content") for name in ("a", "b", "c")])
    for number in range(5):
        server.zadd("aioretryq.dead.index", {b"a\xff%d" % number: 0})
    assert [entry.id for entry in await broker.dead(limit=2)] == ["a", "b"]
    assert [entry.id for entry in await broker.dead(after="b", limit=2)] == ["c"]
    assert [entry.id for entry in await broker.dead()] == ["a", "b", "c"]
    assert caplog.text.count("are no text and ignored") == 1


async def test_a_queue_that_has_become_something_else_does_not_hinder_the_others(broker, server):
    await broker.send([Outgoing(queue, task_message(queue=queue), queue) for queue in ("celery", "other")])
    held = (await broker.claim(["celery", "other"], limit=5)).deliveries
    server.hset("other", "1", "1")
    await broker.requeue(held)
    assert await broker.depth(["celery"]) == {"celery": 1}
    assert server.hlen("unacked") == 1  # comes back once its queue is one again
    server.delete("other")
    await broker.requeue(held)
    assert await broker.depth(["other"]) == {"other": 1}


@pytest.mark.parametrize("queue", [b'"\\ud800"', b"[" * 100_000, b"\xff", b"5"])
async def test_entries_of_unacked_that_lead_nowhere(redis_url, server, queue, caplog):
    async with open_broker(redis_url) as broker:
        await broker.send([Outgoing("celery", task_message(), "tag")])
        (held,) = (await broker.claim(["celery"], limit=5)).deliveries
        value = server.hget("unacked", held.tag)
        server.hset("unacked", held.tag, value[: value.rindex(b',"",') + 4] + queue + b"]")
        await broker.recover()
        server.zadd("aioretryq.leases", {held.tag: 1})
        assert await broker.recover() == 0
        await broker.send([Outgoing("celery", task_message("b"), "another")])
        assert len((await broker.claim(["celery"], limit=5)).deliveries) == 1
