"""Attempts, deliveries and interruptions are counted apart; deliveries are bounded; on each broker."""

from __future__ import annotations

import asyncio

import pytest

from aioretryq import TaskQueue, Worker, WorkerLostError, current_task
from queues import dead_letters, soon, until

LEASE = 0.8


@pytest.fixture
async def queue(url):
    async with TaskQueue(url, lease=LEASE) as queue:
        yield queue


class Long:
    """A task that runs until it is let go, and notes its counters at each beginning."""

    def __init__(self, queue, **options):
        self.seen = []
        self.go = asyncio.Event()

        @queue.task(name="long", **options)
        async def long():
            request = current_task().request
            self.seen.append((request.attempts, request.deliveries, request.interruptions))
            await self.go.wait()
            return "done"

        self.task = long


async def crash(queue, long, times):
    """A worker that takes the message and is gone, as when its process is killed."""
    before = len(long.seen)
    for number in range(1, times + 1):
        running = asyncio.create_task(Worker(queue).run())
        await until(lambda number=number: len(long.seen) == before + number)
        running.cancel()
        await asyncio.wait([running])


async def test_ten_deploys_in_one_long_task_cost_nothing(queue):
    long = Long(queue)
    result = await long.task.delay()
    for number in range(10):
        async with Worker(queue, grace=0).running():
            await until(lambda number=number: len(long.seen) == number + 1)
    long.go.set()
    async with Worker(queue).running():
        assert await soon(result.get()) == "done"
    assert long.seen == [(1, 1, number) for number in range(11)]


async def test_crashes_count_as_deliveries(queue):
    long = Long(queue, max_deliveries=3)
    result = await long.task.delay()
    await crash(queue, long, 2)
    long.go.set()
    async with Worker(queue).running():
        assert await soon(result.get()) == "done"
    assert long.seen == [(1, 1, 0), (1, 2, 0), (1, 3, 0)]


async def test_a_task_that_kills_its_workers_is_buried(queue, caplog):
    long = Long(queue, max_deliveries=2)
    result = await long.task.delay()
    await crash(queue, long, 2)
    async with Worker(queue).running():
        with pytest.raises(WorkerLostError, match="was given to 2 workers; each died with it or lost its lease"):
            await soon(result.get())
        (letter,) = await dead_letters(queue, 1)
    assert len(long.seen) == 2
    assert (letter.reason, letter.task, letter.task_id) == ("too many deliveries", "long", result.id)
    assert (letter.attempts, letter.deliveries) == (0, 3)
    assert await queue.broker.depth(["celery"]) == {"celery": 0}
    assert "given up (too many deliveries)" in caplog.text
    assert "kept as dead letter" in caplog.text
    assert "is given to a worker again (2 of 2)" in caplog.text


async def test_crashes_and_deploys_do_not_add_up(queue):
    long = Long(queue, max_deliveries=2)
    result = await long.task.delay()
    await crash(queue, long, 1)
    for number in range(3):
        async with Worker(queue, grace=0).running():
            await until(lambda number=number: len(long.seen) == number + 2)
    long.go.set()
    async with Worker(queue).running():
        assert await soon(result.get()) == "done"
    assert long.seen == [(1, 1, 0), (1, 2, 0), (1, 2, 1), (1, 2, 2), (1, 2, 3)]


async def test_each_attempt_is_counted_afresh(queue):
    seen = []

    @queue.task(bind=True, max_retries=5, default_retry_delay=0)
    async def work(self):
        seen.append((self.request.attempts, self.request.deliveries))
        if len(seen) < 5:
            raise self.retry()
        return "done"

    async with Worker(queue).running():
        result = await work.delay()
        assert await soon(result.get()) == "done"
    assert seen == [(n, 1) for n in range(1, 6)]


async def test_whoever_only_ran_beside_a_killer_survives_it(queue, monkeypatch):
    """At their last chance suspects run one at a time."""
    began, done = [], []

    @queue.task(name="innocent", max_deliveries=2)
    async def innocent(number):
        began.append(number)
        if len(began) <= 5:  # beside the killer
            await asyncio.Event().wait()
        done.append(number)

    killer = Long(queue, max_deliveries=2)
    deadly = await killer.task.delay()
    innocents = [await innocent.delay(number) for number in range(5)]

    running = asyncio.create_task(Worker(queue).run())
    await until(lambda: len(began) == 5 and len(killer.seen) == 1)
    running.cancel()  # the first death
    await asyncio.wait([running])

    running = asyncio.create_task(Worker(queue).run())
    await until(lambda: len(killer.seen) == 2)
    running.cancel()  # the second death: only the killer was at work
    await asyncio.wait([running])

    # Not before: a worker that offers them again all the time may die in the middle of that.
    monkeypatch.setattr("aioretryq.worker.executor.SUSPECTS_APART", 0.05)
    async with Worker(queue).running():
        for result in innocents:
            await soon(result.get())
        with pytest.raises(WorkerLostError):
            await soon(deadly.get())
        (letter,) = await dead_letters(queue, 1)
    assert letter.task == "long"
    assert sorted(done) == list(range(5))
    assert killer.seen == [(1, 1, 0), (1, 2, 0)]


async def test_a_reused_id_is_not_taken_for_done_after_a_deploy(queue):
    """Yesterday's result says nothing of a message that a stopping worker handed back."""
    runs, go = [], asyncio.Event()

    @queue.task
    async def work():
        runs.append(1)
        if len(runs) == 2:
            await asyncio.Event().wait()
        if len(runs) == 3:
            go.set()

    async with Worker(queue).running():
        await soon((await work.apply_async(task_id="again")).get())
    await work.apply_async(task_id="again")
    async with Worker(queue, grace=0).running():
        await until(lambda: len(runs) == 2)
    async with Worker(queue).running():
        await soon(go.wait())
