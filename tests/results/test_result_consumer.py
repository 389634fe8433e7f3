"""Waiting for results over one listener."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from results.fake_backends import TroubledBackend

from aioretryq import BackendError, NotOpenError
from aioretryq.backends.consumer import ResultConsumer
from aioretryq.message import StoredResult
from queues import soon, until


def stored(task_id, status="SUCCESS"):
    return StoredResult(task_id, status, b'{"status": "%s", "id": "%s"}' % (status.encode(), task_id.encode()))


class World:
    def __init__(self, backend, poll_interval):
        self.backend = backend
        self.consumer = ResultConsumer(backend, poll_interval=poll_interval)
        self.running = asyncio.create_task(self.consumer.run())

    async def first(self, task_id):
        with self.consumer.watch(task_id) as watch:
            return await watch.next()

    async def put(self, task_id, status="SUCCESS"):
        await self.backend.memory.store([stored(task_id, status)])

    async def stop(self):
        self.running.cancel()
        await asyncio.wait([self.running])

    async def all_gone(self):
        await until(lambda: self.consumer.watching == self.consumer.subscribed == 0)
        assert all(not listener.subscribed for listener in self.backend.listeners[-1:])


@pytest.fixture
async def world():
    async with TroubledBackend() as backend:
        made = World(backend, poll_interval=3600)
        yield made
        await made.stop()


@pytest.fixture
async def polling():
    async with TroubledBackend() as backend:
        made = World(backend, poll_interval=0.05)
        yield made
        await made.stop()


async def test_nobody_waits_nothing_is_subscribed(world):
    await world.put("a")
    await asyncio.sleep(0)
    assert (world.consumer.watching, world.consumer.subscribed, world.backend.listeners) == (0, 0, [])


async def test_a_result_that_is_there(world):
    await world.put("a")
    assert b'"a"' in await soon(world.first("a"))
    await world.all_gone()


async def test_a_result_that_comes(world):
    waiting = asyncio.create_task(world.first("a"))
    await until(lambda: world.consumer.subscribed == 1)
    await world.put("a")
    assert b'"a"' in await soon(waiting)
    await world.all_gone()


async def test_a_result_stored_between_fetch_and_subscribe(world):
    async def store_now(task_ids):
        assert world.backend.fetched, "the first look comes before or with the subscription"
        await world.put("a")

    world.backend.before_subscribe = store_now
    assert b'"a"' in await soon(world.first("a"))
    await world.all_gone()


async def test_where_subscribing_tells_that_nothing_is_there_nothing_is_fetched(world):
    async def first(task_id):
        with world.consumer.watch(task_id, just_sent=True) as watch:
            return await watch.next()

    world.backend.tells_what_is_there = True
    waiting = [asyncio.create_task(first(name)) for name in "ab"]
    await until(lambda: world.backend.asked_for == [["a", "b"]])
    for name in "ab":
        await world.put(name)
    await soon(asyncio.gather(*waiting))
    assert world.backend.fetched == []
    assert b'"a"' in await soon(first("a"))
    assert world.backend.fetched == [["a"]]


async def test_coming_back_to_what_is_still_subscribed(world):
    """Announcements that nobody saw meanwhile are not missed."""
    with world.consumer.watch("a"):
        await until(lambda: world.consumer.subscribed == 1)
    await world.put("a")
    assert world.consumer.subscribed == 1
    assert b'"a"' in await soon(world.first("a"))
    await world.all_gone()
    assert world.backend.asked_for == [["a"]]


async def test_a_watch_with_a_deadline(world):
    with world.consumer.watch("a") as watch:
        watch.fail_after(0.01)
        with pytest.raises(TimeoutError):
            await soon(watch.next())
    with world.consumer.watch("a") as watch:
        watch.fail_after(3600)
        await world.put("a")
        assert b'"a"' in await soon(watch.next())
    await world.all_gone()


async def test_deadlines_come_in_their_order_and_leave_little_behind(world):
    async def late(seconds):
        with world.consumer.watch("a") as watch:
            watch.fail_after(seconds)
            with pytest.raises(TimeoutError):
                await watch.next()
            return seconds

    wanted = [each / 1000 for each in (150, 30, 150, 60, 30)]
    waiting = [asyncio.create_task(late(seconds)) for seconds in wanted]
    found = [await each for each in asyncio.as_completed(waiting)]
    assert found == sorted(wanted)
    for seconds in range(1000, 2000):
        with world.consumer.watch("a") as watch:
            watch.fail_after(seconds)
    assert len(world.consumer.deadlines) <= 10
    await world.all_gone()


async def test_many_watches_of_one_task_come_and_go(world):
    watches = [world.consumer.watch("a").__enter__() for _ in range(3)]
    for watch in (watches[0], watches[2]):  # the first one, and one of the others
        watch.__exit__(None, None, None)
    await world.put("a")
    assert b'"a"' in await soon(watches[1].next())
    watches[1].__exit__(None, None, None)
    await world.all_gone()


async def test_a_lost_announcement_is_healed_by_polling(polling):
    polling.backend.deaf = True
    waiting = asyncio.create_task(polling.first("a"))
    await until(lambda: polling.consumer.subscribed == 1 and len(polling.backend.fetched) >= 2)
    await polling.put("a")
    assert b'"a"' in await soon(waiting)
    await polling.all_gone()


async def test_a_lost_listener_fetches_all_that_is_awaited_again(world):
    waiting = [asyncio.create_task(world.first(str(n))) for n in range(2500)]
    await until(lambda: world.consumer.subscribed == 2500)
    world.backend.deaf = True
    for n in range(0, 2500, 2):
        await world.put(str(n))
    world.backend.deaf = False
    world.backend.listeners[0].subscribed.clear()
    world.backend.lose_listener()
    await soon(asyncio.gather(*waiting[::2]))
    await until(lambda: len(world.backend.listeners) == 2 and len(world.backend.listeners[1].subscribed) == 1250)
    for n in range(1, 2500, 2):
        await world.put(str(n))
    await soon(asyncio.gather(*waiting))
    await world.all_gone()


async def test_a_backend_that_is_away_for_a_while(world):
    world.backend.failures = 3
    await world.put("a")
    assert b'"a"' in await soon(world.first("a"))
    await world.all_gone()


async def test_who_gives_up_while_the_backend_is_away_is_forgotten(world):
    """Such an id was never subscribed, so nothing has to be given up later."""
    world.backend.failures = 10**6
    with world.consumer.watch("a"):
        await until(lambda: world.backend.calls >= 2)
        for n in range(100):
            with world.consumer.watch(str(n)):
                pass
    assert len(world.consumer._left) == 0


async def test_who_leaves_while_others_are_subscribed_is_not(world):
    with contextlib.ExitStack() as watching:
        left = [watching.enter_context(world.consumer.watch(str(n))) for n in range(2500)]

        async def leave(task_ids):
            world.backend.before_subscribe = None
            watching.pop_all().close()

        world.backend.before_subscribe = leave
        await until(lambda: world.backend.asked_for)
        await world.all_gone()
    assert sum(map(len, world.backend.asked_for)) < len(left)


async def test_two_waiters_and_one_is_cancelled(world):
    one, two = (asyncio.create_task(world.first("a")) for _ in range(2))
    await until(lambda: world.consumer.subscribed == 1)
    one.cancel()
    await asyncio.wait([one])
    assert (world.consumer.watching, world.consumer.subscribed) == (1, 1)
    await world.put("a")
    assert b'"a"' in await soon(two)
    await world.all_gone()


async def test_a_second_waiter_of_a_result_that_the_first_is_subscribed_to(world):
    one = asyncio.create_task(world.first("a"))
    await until(lambda: world.consumer.subscribed == 1)
    two = asyncio.create_task(world.first("a"))
    await world.put("a")
    await soon(asyncio.gather(one, two))
    three = await soon(world.first("a"))
    assert b'"a"' in three
    await world.all_gone()


async def test_leaving_and_coming_back_at_once(world):
    for _ in range(50):
        waiting = asyncio.create_task(world.first("a"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    waiting = asyncio.create_task(world.first("a"))
    await until(lambda: world.consumer.subscribed == 1)
    await world.put("a")
    await soon(waiting)
    await world.all_gone()


async def test_changes_come_in_order_and_the_final_one_last(world):
    with world.consumer.watch("a") as watch:
        await until(lambda: world.consumer.subscribed == 1)
        for status in ("STARTED", "PROGRESS", "RETRY", "SUCCESS"):
            await world.put("a", status)
            assert status.encode() in await soon(watch.next())
    await world.all_gone()


async def test_closing_tells_those_who_wait(world):
    waiting = [asyncio.create_task(world.first(name)) for name in "aab"]
    await until(lambda: world.consumer.subscribed == 2)
    await world.stop()
    for task in waiting:
        with pytest.raises(NotOpenError, match="closed"):
            await soon(task)
    with pytest.raises(NotOpenError):
        await soon(world.first("late"))


async def test_a_refusal_is_told_to_those_who_wait_and_others_may_come_later(world):
    world.backend.failures, world.backend.error = 3, BackendError("refused")  # both, then each of them
    waiting = [asyncio.create_task(world.first(name)) for name in "aab"]
    for outcome in await soon(asyncio.gather(*waiting, return_exceptions=True)):
        assert outcome is world.backend.error
    await world.put("a")
    assert b'"a"' in await soon(world.first("a"))
    await world.all_gone()
