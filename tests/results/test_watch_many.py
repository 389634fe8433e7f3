"""Waiting for very many results over one listener, of which only some are listened to."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from results.fake_backends import TroubledBackend

from aioretryq import BackendError, NotOpenError
from aioretryq.backends.consumer import ResultConsumer
from aioretryq.ids import Ids
from aioretryq.message import StoredResult
from queues import soon, until


def stored(task_id, status="SUCCESS"):
    return StoredResult(task_id, status, b'{"status": "%s", "id": "%s"}' % (status.encode(), task_id.encode()))


class World:
    def __init__(self, backend, poll_interval):
        self.backend = backend
        self.consumer = ResultConsumer(backend, poll_interval=poll_interval)
        self.running = asyncio.create_task(self.consumer.run())

    async def put(self, *ids, status="SUCCESS"):
        await self.backend.memory.store([stored(task_id, status) for task_id in ids])

    def all(self, ids, **options):
        return asyncio.create_task(self.seen(ids, **options))

    async def seen(self, ids, **options):
        found = []
        with self.consumer.watch_many(ids, **options) as watch:
            while some := await watch.next():
                found += some
        return found

    async def all_gone(self):
        await until(lambda: self.consumer.watching == self.consumer.subscribed == 0)
        assert all(not listener.subscribed for listener in self.backend.listeners[-1:])

    async def stop(self):
        self.running.cancel()
        await asyncio.wait([self.running])


@contextlib.asynccontextmanager
async def open_world(poll_interval=3600.0):
    async with TroubledBackend() as backend:
        world = World(backend, poll_interval)
        yield world
        await world.stop()


@pytest.fixture
async def world():
    async with open_world() as world:
        yield world


@pytest.fixture
async def polling():
    async with open_world(0.02) as world:
        yield world


def names(count):
    return [f"task-{number}" for number in range(count)]


async def test_what_is_stored_is_fetched_by_the_thousand_and_never_subscribed(world):
    ids = names(3500)
    await world.put(*ids)
    found = await soon(world.all(Ids(ids)))
    assert [(place, task_id) for place, task_id, _ in found] == list(enumerate(ids))
    assert [len(asked) for asked in world.backend.fetched] == [1000, 1000, 1000, 500]
    assert world.backend.asked_for == []
    await world.all_gone()


async def test_what_comes_is_seen_in_the_order_in_which_it_comes(world):
    waiting = world.all(["a", "b", "c"])
    await until(lambda: world.consumer.subscribed == 3)
    for task_id in "cab":
        await world.put(task_id)
    assert [(place, task_id) for place, task_id, _ in await soon(waiting)] == [(2, "c"), (0, "a"), (1, "b")]
    await world.all_gone()


async def test_only_so_many_are_listened_to(world):
    ids = names(5000)
    waiting = world.all(ids, window=1500)
    done = 0
    while done < len(ids):
        wanted = min(1500, len(ids) - done)
        # New ones are taken by the thousand, as soon as there is room for as many.
        await until(lambda wanted=wanted: wanted - 1000 < world.consumer.subscribed <= 1500)
        assert world.consumer.watching <= 1500
        await world.put(*ids[done : done + 1000])
        done += 1000
    found = await soon(waiting)
    assert sorted(place for place, _, _ in found) == list(range(5000))
    await world.all_gone()


async def test_those_that_nobody_listens_to_are_looked_for_all_the_same(polling):
    ids = names(3000)
    waiting = polling.all(ids, window=1000)
    await until(lambda: polling.consumer.subscribed == 1000)
    await polling.put(*ids[2000:])
    await until(lambda: polling.consumer.subscribed == 1000 and len(polling.backend.fetched) > 20)
    await polling.put(*ids[:2000])
    found = await soon(waiting)
    assert sorted(place for place, _, _ in found) == list(range(3000))
    assert {place for place, _, _ in found[:1000]} == set(range(2000, 3000))
    await polling.all_gone()


async def test_without_a_window_they_are_only_looked_for(polling):
    waiting = polling.all(names(1200), window=0)
    await until(lambda: len(polling.backend.fetched) > 4)
    assert polling.backend.asked_for == []
    await polling.put(*names(1200))
    assert len(await soon(waiting)) == 1200
    assert polling.backend.asked_for == []


async def test_one_id_in_several_places(world):
    waiting = world.all(["a", "b", "a", "a"])
    await until(lambda: world.consumer.subscribed == 2)
    await world.put("a", "b")
    assert sorted((place, task_id) for place, task_id, _ in await soon(waiting)) == [
        (0, "a"),
        (1, "b"),
        (2, "a"),
        (3, "a"),
    ]
    assert await soon(world.seen(["b", "b"])) == [(place, "b", stored("b").document) for place in (0, 1)]
    await world.all_gone()


async def test_several_watch_the_same(world):
    waiting = [world.all(["a", "b"]), world.all(["b", "c"]), asyncio.create_task(first(world, "b"))]
    await until(lambda: world.consumer.subscribed == 3)
    await world.put("b")
    await soon(waiting[2])
    await world.put("a", "c")
    one, other, _ = await soon(asyncio.gather(*waiting))
    assert [task_id for _, task_id, _ in one] == ["b", "a"]
    assert [task_id for _, task_id, _ in other] == ["b", "c"]
    await world.all_gone()


async def first(world, task_id):
    with world.consumer.watch(task_id) as watch:
        return await watch.next()


async def test_one_that_waits_for_one_does_not_wait_for_those_who_wait_for_many(world):
    """A thousand at a time, then others have their turn."""
    gate = asyncio.Event()
    asked = []

    async def slowly(task_ids):
        asked.append(len(task_ids))
        if len(asked) == 2:
            gate.set()

    world.backend.before_subscribe = slowly
    await world.put("one")
    waiting = world.all(names(9000))
    await soon(gate.wait())
    await soon(first(world, "one"))
    assert len(asked) < 9
    waiting.cancel()
    await asyncio.wait([waiting])
    await world.all_gone()


async def test_other_states_on_request(polling):
    seen = []
    with polling.consumer.watch_many(["a", "b"], every=True) as watch:
        for task_id, status in (("a", "STARTED"), ("a", "PROGRESS"), ("b", "SUCCESS"), ("a", "SUCCESS")):
            polled = len(polling.backend.fetched)
            await until(lambda polled=polled: len(polling.backend.fetched) > polled + 3)  # nothing is told again
            await polling.put(task_id, status=status)
            seen += [(task_id, document.split(b'"')[3]) for _, task_id, document in await soon(watch.next())]
        assert await soon(watch.next()) == []
    assert seen == [("a", b"STARTED"), ("a", b"PROGRESS"), ("b", b"SUCCESS"), ("a", b"SUCCESS")]
    quiet = polling.all(["c"])
    await polling.put("c", status="STARTED")
    await polling.put("c")
    assert len(await soon(quiet)) == 1


async def test_a_lost_connection(world):
    ids = names(2500)
    waiting = world.all(ids, window=2000)
    await until(lambda: world.consumer.subscribed == 2000)
    world.backend.deaf = True
    await world.put(*ids)
    world.backend.lose_listener()
    world.backend.deaf = False
    assert len(await soon(waiting)) == 2500
    await world.all_gone()


async def test_nothing_is_lost_while_it_subscribes(world):
    async def meanwhile(task_ids):
        await world.put(*task_ids)

    world.backend.before_subscribe = meanwhile
    assert len(await soon(world.all(names(2500)))) == 2500
    await world.all_gone()


async def test_a_backend_that_refuses_ends_the_wait(world):
    world.backend.failures, world.backend.error = 3, BackendError("no")
    with pytest.raises(BackendError, match="no"):
        await soon(world.all(["a"]))
    await world.put("a")
    assert len(await soon(world.all(["a"]))) == 1


async def test_closing_the_queue_ends_the_wait(world):
    waiting = world.all(names(2000), window=100)
    await until(lambda: world.consumer.subscribed == 100)
    await world.stop()
    for each in (waiting, world.all(["b"])):
        with pytest.raises(NotOpenError, match="closed"):
            await soon(each)


async def test_leaving_early_leaks_nothing(world):
    ids = names(3000)
    await world.put(*ids[:10])
    with world.consumer.watch_many(ids) as watch:
        assert len(await soon(watch.next())) == 10
    await world.all_gone()
    waiting = world.all(ids)
    await until(lambda: world.consumer.subscribed == 2990)
    waiting.cancel()
    await asyncio.wait([waiting])
    await world.all_gone()


async def test_a_slow_reader_is_not_flooded(world):
    ids = names(20_000)
    await world.put(*ids)
    with world.consumer.watch_many(ids) as watch:
        seen = await soon(watch.next())
        await until(lambda: not watch.wants)
        assert len(world.backend.fetched) < 6
        while found := await soon(watch.next()):
            seen += found
    assert len(seen) == 20_000


async def test_of_nothing(world):
    assert await soon(world.seen([])) == []
    await world.all_gone()
