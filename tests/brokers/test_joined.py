"""Where broker and result backend are in one place, a finish stores the result in the same step."""

from __future__ import annotations

import asyncio
import gzip
import pickle

import pytest
import pytest_asyncio
import redis

from aioretryq import states
from aioretryq.backends.memory import MemoryBackend
from aioretryq.backends.redis import RedisBackend
from aioretryq.backends.sqlite import SQLiteBackend
from aioretryq.brokers.redis import RedisBroker
from aioretryq.brokers.sqlite import SQLiteBroker
from aioretryq.config import Settings
from aioretryq.errors import BackendUnavailable, BrokerUnavailable
from aioretryq.message import ChordOpening, Finish, Outgoing, StoredResult
from aioretryq.protocol.result import ResultDocument, encode_result
from contracts.joined_contract import JoinedContract, part


def document(task_id, state=states.SUCCESS, value=1):
    return encode_result(ResultDocument(task_id=task_id, status=state, result=value))


def result(task_id, state=states.SUCCESS, value=1, ttl=60.0):
    return StoredResult(task_id, state, document(task_id, state, value), ttl)


@pytest.fixture
def redis_client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest_asyncio.fixture
async def place(redis_url):
    settings = Settings()
    async with RedisBroker(redis_url, settings) as broker, RedisBackend(redis_url, settings) as backend:
        assert broker.joins(backend)
        yield broker, backend


async def taken(broker, *names):
    await broker.send([Outgoing("celery", name.encode(), f"tag of {name}") for name in names])
    return (await broker.claim(["celery"], limit=len(names))).deliveries


async def test_who_joins_whom(redis_url, place):
    broker, _ = place
    elsewhere = redis_url.rpartition("/")[0] + "/9"
    assert not RedisBroker(redis_url, Settings()).joins(RedisBackend(elsewhere, Settings()))
    assert not RedisBroker(redis_url, Settings()).joins(MemoryBackend())
    assert broker.joins(RedisBackend(redis_url, Settings()))
    assert not broker.joins(RedisBackend(elsewhere, Settings())), "whoever else has joined"


async def test_a_result_is_stored_announced_and_expires(place, redis_client):
    broker, backend = place
    a, b = await taken(broker, "a", "b")
    async with backend.listen() as listener:
        await listener.subscribe(["a", "b"])
        assert await broker.finish([Finish(a, result=result("a")), Finish(b, result=result("b", ttl=None))]) == [
            True,
            True,
        ]
        heard: dict[str, bytes] = {}
        async with asyncio.timeout(10):
            while len(heard) < 2:
                heard.update(await listener.receive())
    assert heard == {"a": document("a"), "b": document("b")}
    assert await backend.fetch(["a", "b"]) == [document("a"), document("b")]
    assert 0 < redis_client.pttl(backend.key("a")) <= 60_000
    assert redis_client.pttl(backend.key("b")) == -1
    assert await broker.depth(["celery"]) == {"celery": 0}
    assert redis_client.hlen("unacked") == redis_client.zcard("unacked_index") == 0


async def test_of_a_lost_lease_nothing_is_stored(place):
    broker, backend = place
    a, b = await taken(broker, "a", "b")
    await broker.requeue([a])
    follow = (Outgoing("other", b"next", "tag of next"),)
    assert await broker.finish([Finish(a, follow, result=result("a")), Finish(b, result=result("b"))]) == [
        False,
        True,
    ]
    assert await backend.fetch(["a", "b"]) == [None, document("b")]
    assert await broker.depth(["other"]) == {"other": 0}


@pytest.mark.parametrize(
    ("before", "after", "stays"),
    [
        (states.SUCCESS, states.FAILURE, True),
        (states.FAILURE, states.SUCCESS, True),
        (states.REVOKED, states.REVOKED, True),
        (states.REVOKED, states.SUCCESS, False),
        (states.RETRY, states.SUCCESS, False),
        (states.STARTED, states.SUCCESS, False),
    ],
)
async def test_what_is_final_stays_and_the_message_goes(place, before, after, stays):
    broker, backend = place
    await backend.store([result("a", before, "before")])
    (a,) = await taken(broker, "a")
    assert await broker.finish([Finish(a, result=result("a", after, "after"))]) == [True]
    expected = document("a", before, "before") if stays else document("a", after, "after")
    assert await backend.fetch(["a"]) == [expected]
    assert await broker.finish([Finish(a)]) == [False]


@pytest.mark.parametrize(
    "stored",
    [pickle.dumps({"status": "SUCCESS"}), gzip.compress(b"{}", mtime=0), b"no document"],
    ids=["pickled", "compressed", "else"],
)
async def test_what_only_the_backend_can_judge_is_left_to_it(place, redis_client, stored):
    broker, backend = place
    redis_client.set(backend.key("a"), stored)
    a, b = await taken(broker, "a", "b")
    finishes = [Finish(a, (Outgoing("other", b"next", "t"),), result=result("a")), Finish(b, result=result("b"))]
    assert await broker.finish(finishes) == [None, True]
    assert await backend.fetch(["a", "b"]) == [stored, document("b")]
    assert await broker.depth(["other"]) == {"other": 0}
    assert await broker.finish([Finish(a)]) == [True]


async def test_a_key_of_another_type_is_left_to_the_backend(place, redis_client):
    broker, backend = place
    redis_client.lpush(backend.key("a"), "x")
    (a,) = await taken(broker, "a")
    assert await broker.finish([Finish(a, result=result("a"))]) == [None]
    assert await broker.finish([Finish(a)]) == [True]


async def test_more_than_lua_has_room_for(place, redis_client):
    broker, backend = place
    names = [str(number) for number in range(9000)]
    deliveries = await taken(broker, *names)
    finishes = [Finish(each, result=result(name)) for each, name in zip(deliveries, names, strict=True)]
    assert await broker.finish(finishes) == [True] * len(names)
    assert redis_client.zcard("unacked_index") == redis_client.hlen("unacked") == 0
    assert None not in await backend.fetch(names)


async def test_a_full_server_stores_nothing_and_keeps_the_message(place, redis_client):
    broker, backend = place
    (a,) = await taken(broker, "a")
    redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises((BrokerUnavailable, BackendUnavailable)):
            await broker.finish([Finish(a, result=result("a"))])
    finally:
        redis_client.config_set("maxmemory", 0)
    assert await backend.fetch(["a"]) == [None]
    assert await broker.finish([Finish(a, result=result("a"))]) == [True]
    assert await backend.fetch(["a"]) == [document("a")]


@pytest.mark.parametrize("before", [0, 1], ids=["nothing to forget", "an answer to forget"])
async def test_a_full_server_never_goes_further_for_results(place, redis_client, before):
    """Nor in a batch that begins by acknowledging; what brings no result is acknowledged there all the same."""
    broker, backend = place
    *early, a, b, c = await taken(broker, *["early"][:before], "a", "b", "c")
    for delivery in early:
        assert await broker.finish([Finish(delivery)]) == [True]
    redis_client.config_set("maxmemory", 1)
    try:
        for batch in ([Finish(a, result=result("a"))], [Finish(b), Finish(a, result=result("a"))]):
            with pytest.raises(BrokerUnavailable, match="maxmemory"):
                await broker.finish(batch)
        with pytest.raises(BackendUnavailable):
            await backend.store([result("a")])
        assert redis_client.hlen("unacked") == 3
        assert await broker.finish([Finish(c)]) == [True]
    finally:
        redis_client.config_set("maxmemory", 0)
    assert await backend.fetch(["a"]) == [None]
    assert await broker.finish([Finish(b), Finish(a, result=result("a"))]) == [True, True]
    assert await backend.fetch(["a"]) == [document("a")]


# -- parts of chords


class TestPartsInRedis(JoinedContract):
    @pytest.fixture(params=[True, False], ids=["ordered", "in the order of their return"])
    def settings(self, request):
        return Settings(result_backend_transport_options={"result_chord_ordered": request.param})

    @pytest_asyncio.fixture
    async def place(self, redis_url, settings):
        async with RedisBroker(redis_url, settings) as broker, RedisBackend(redis_url, settings) as backend:
            assert broker.joins(backend)
            yield broker, backend

    async def test_parts_without_a_place_come_last(self, place, settings):
        if not settings.result_backend_transport_options["result_chord_ordered"]:
            pytest.skip("there they have no places")
        await super().test_parts_without_a_place_come_last(place)

    async def test_parts_are_counted_by_finishing(self, place, settings):
        if not settings.result_backend_transport_options["result_chord_ordered"]:
            pytest.skip("the contract asks for their order")
        await super().test_parts_are_counted_by_finishing(place)


class TestPartsInSQLite(JoinedContract):
    @pytest_asyncio.fixture
    async def place(self, tmp_path):
        path = str(tmp_path / "queue.sqlite3")
        async with SQLiteBroker(path) as broker, SQLiteBackend(path) as backend:
            assert broker.joins(backend)
            yield broker, backend


G = "celery-taskset-meta-g"


async def test_counted_as_celery_would(place, redis_client):
    broker, backend = place
    await backend.open_chords([ChordOpening("g", 3, 50)])
    await backend.save_group("g", b"{}", 50)
    a, b = await taken(broker, "a", "b")
    finishes = [Finish(a, parts=(part(0, ttl=90.0),)), Finish(b, parts=(part(None, task="x:y", ttl=90.0),))]
    assert await broker.finish(finishes) == [True, True]
    assert redis_client.zrange(f"{G}.j", 0, -1, withscores=True) == [(b"r0", 0.0), (b"rNone", float("inf"))]
    assert redis_client.smembers(f"{G}.d") == {b"t0:0", b"x:y:+inf"}
    assert [redis_client.ttl(key) for key in (f"{G}.j", f"{G}.s", f"{G}.d", G)] == [90] * 4


@pytest.mark.parametrize("kind", ["j", "t", "s", "d", "c"])
async def test_a_chord_that_cannot_be_read_holds_nobody_up(place, redis_client, kind):
    """It is the backend that says what is wrong, of that message alone."""
    broker, backend = place
    redis_client.hset(f"{G}.{kind}", "a", "b")
    a, b = await taken(broker, "a", "b")
    finishes = [Finish(a, result=result("a"), parts=(part(0),)), Finish(b, result=result("b"))]
    assert await broker.finish(finishes) == [None, True]
    assert await backend.fetch(["a"]) == [None]


async def test_a_result_that_only_the_backend_can_judge_counts_no_part(place, redis_client):
    broker, backend = place
    await backend.open_chords([ChordOpening("g", 3, 100)])
    redis_client.set("celery-task-meta-a", pickle.dumps({"status": "STARTED"}))
    (a,) = await taken(broker, "a")
    assert await broker.finish([Finish(a, result=result("a"), parts=(part(0),))]) == [None]
    assert await backend.chord_parts("g") == []


async def test_a_full_server_counts_nothing(place, redis_client):
    broker, backend = place
    (a,) = await taken(broker, "a")
    redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises((BrokerUnavailable, BackendUnavailable)):
            await broker.finish([Finish(a, parts=(part(0),))])
    finally:
        redis_client.config_set("maxmemory", 0)
    assert await backend.chord_parts("g") == []
    assert await broker.finish([Finish(a, parts=(part(0),))]) == [True]
    assert await backend.chord_parts("g") == [b"r0"]
