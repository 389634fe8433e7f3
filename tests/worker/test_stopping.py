"""Stopping a worker: what has not started goes back, what runs gets its grace, nothing is lost."""

from __future__ import annotations

import asyncio
import threading

import pytest

from aioretryq import TaskQueue, TaskRevokedError, Worker
from aioretryq.protocol.task import decode_task
from queues import memory_url, soon, until


@pytest.fixture
async def queue(url):
    async with TaskQueue(url) as queue:
        yield queue


class Crowd:
    """A task that says when it starts, and runs until it is told to end."""

    def __init__(self, queue, **options):
        self.started = []
        self.cancelled = []
        self.go = asyncio.Event()

        @queue.task(name="crowd", **options)
        async def crowd(number):
            self.started.append(number)
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled.append(number)
                raise
            return number

        self.task = crowd


async def waiting(queue):
    """The numbers in the queue, in their order."""
    claim = await queue.broker.claim(["celery"], limit=100)
    return [decode_task(delivery.body).args[0] for delivery in claim.deliveries]


async def test_running_tasks_finish_within_the_grace(queue):
    crowd = Crowd(queue)
    worker = Worker(queue, grace=15)
    running = asyncio.create_task(worker.run())
    results = [await crowd.task.delay(number) for number in range(3)]
    await until(lambda: len(crowd.started) == 3)
    worker.stop()
    late = await crowd.task.delay(99)
    await asyncio.sleep(0)
    crowd.go.set()
    await soon(running)
    assert [await soon(result.get()) for result in results] == [0, 1, 2]
    assert crowd.cancelled == []
    assert await late.status() == "PENDING"
    assert await queue.broker.depth(["celery"]) == {"celery": 1}


async def test_after_the_grace_they_are_cancelled_and_go_back_to_the_front_in_order(queue):
    crowd = Crowd(queue)
    results = [await crowd.task.delay(number) for number in range(5)]
    worker = Worker(queue, grace=0.05, concurrency=3)
    async with worker.running():
        await until(lambda: len(crowd.started) == 3)
    assert sorted(crowd.cancelled) == [0, 1, 2]
    assert await waiting(queue) == [0, 1, 2, 3, 4]
    assert [await result.status() for result in results] == ["PENDING"] * 5


async def test_what_was_handed_back_runs_elsewhere(queue):
    crowd = Crowd(queue)
    results = [await crowd.task.delay(number) for number in range(4)]
    async with Worker(queue, grace=0.05).running():
        await until(lambda: len(crowd.started) == 4)
    crowd.go.set()
    async with Worker(queue).running():
        assert [await soon(result.get()) for result in results] == [0, 1, 2, 3]
    assert len(crowd.started) == 8
    assert await queue.broker.depth(["celery"]) == {"celery": 0}


async def test_what_has_not_started_goes_back_at_once(queue):
    """Plain functions that wait for a thread have not started."""
    started, go = [], threading.Event()

    @queue.task
    def plain(number):
        started.append(number)
        go.wait(15)
        return number

    results = [await plain.delay(number) for number in range(5)]
    worker = Worker(queue, concurrency=5, threads=1, grace=15)
    running = asyncio.create_task(worker.run())
    try:
        await until(lambda: len(started) == 1)
        async with asyncio.timeout(15):
            while await queue.broker.depth(["celery"]) != {"celery": 0}:
                await asyncio.sleep(0.001)
        worker.stop()
        async with asyncio.timeout(15):
            while await queue.broker.depth(["celery"]) != {"celery": 4}:
                await asyncio.sleep(0.001)
        assert not running.done(), "what runs has its grace"
    finally:
        go.set()
    await soon(running)
    assert await soon(results[started[0]].get()) == started[0]
    assert await waiting(queue) == [number for number in range(5) if number != started[0]]


async def test_a_second_stop_ends_the_grace(queue):
    crowd = Crowd(queue)
    worker = Worker(queue, grace=3600)
    running = asyncio.create_task(worker.run())
    await crowd.task.delay(1)
    await until(lambda: crowd.started == [1])
    worker.stop()
    done, _ = await asyncio.wait([running], timeout=0.1)
    assert not done
    worker.stop()
    await soon(running)
    assert crowd.cancelled == [1]
    assert await waiting(queue) == [1]


async def test_a_task_that_finishes_while_being_cancelled_counts(queue):
    started = asyncio.Event()

    @queue.task
    async def stubborn():
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "saved"

    result = await stubborn.delay()
    async with Worker(queue, grace=0.01).running():
        await soon(started.wait())
    assert await soon(result.get()) == "saved"
    assert await queue.broker.depth(["celery"]) == {"celery": 0}


async def test_an_idle_worker_stops_at_once_and_also_before_it_ran(queue):
    worker = Worker(queue, grace=3600)
    worker.stop()
    await soon(worker.run())
    running = asyncio.create_task(Worker(queue).run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])


async def test_stopping_while_messages_are_coming_in_loses_none(queue):
    done = []

    @queue.task
    async def work(number):
        await asyncio.sleep(0.001)
        done.append(number)

    async def produce():
        for number in range(150):
            await work.delay(number)

    producing = asyncio.create_task(produce())
    while not producing.done():
        async with Worker(queue, concurrency=5, grace=0).running():
            before = len(done)
            await until(lambda before=before: len(done) > before or producing.done())
    await producing
    async with Worker(queue).running():
        await until(lambda: set(done) == set(range(150)))


@pytest.mark.parametrize("started", [True, False])
async def test_early_acknowledged_tasks_are_not_run_again_but_those_not_started_are_kept(started):
    go, running = threading.Event(), []
    async with TaskQueue(memory_url()) as queue:

        @queue.task(acks_late=False)
        def early(number):
            running.append(number)
            go.wait(15)
            return number

        results = [await early.delay(number) for number in range(2)]
        try:
            async with Worker(queue, threads=1, grace=0.05).running():
                await until(lambda: len(running) == 1)
        finally:
            go.set()
        cut = running[0]
        if started:
            with pytest.raises(TaskRevokedError, match="terminated"):
                await soon(results[cut].get())
        else:
            async with Worker(queue).running():
                assert await soon(results[1 - cut].get()) == 1 - cut
