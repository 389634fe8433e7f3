"""However tasks end, their places are free again."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from aioretryq import Ignore, Reject, TaskQueue, Worker
from aioretryq.message import Delivery
from aioretryq.worker.jobs import Jobs
from queues import memory_url, soon, until

CONCURRENCY, THREADS = 40, 4


class Crew:
    """Tasks that only end when all of them run at once: proof that no place is missing."""

    def __init__(self, queue):
        self.coroutines = 0
        self.all_here = asyncio.Event()
        self.threads = threading.Barrier(THREADS)

        @queue.task(name="coroutine")
        async def coroutine():
            self.coroutines += 1
            if self.coroutines == CONCURRENCY:
                self.all_here.set()
            await self.all_here.wait()

        @queue.task(name="plain")
        def plain():
            self.threads.wait(15)

        self.coroutine, self.plain = coroutine, plain

    async def assemble(self):
        for task, number in ((self.coroutine, CONCURRENCY), (self.plain, THREADS)):
            results = [await task.delay() for _ in range(number)]
            for result in results:
                await soon(result.get())


@pytest.mark.parametrize("acks_late", [True, False])
async def test_ten_thousand_that_end_badly_leak_no_place(acks_late, caplog):
    """Timed out, failed, retried, ignored, rejected, cancelled by themselves, and in threads."""
    caplog.set_level(logging.CRITICAL, "aioretryq")  # thousands of tracebacks take longer than the tasks
    queue = TaskQueue(memory_url(), task_acks_late=acks_late, task_ignore_result=True)
    ended = 0

    @queue.task(name="bad", bind=True, max_retries=1, default_retry_delay=0, time_limit=0.001, ignore_result=True)
    async def bad(self, number):
        nonlocal ended
        ended += 1
        match number % 6:
            case 0:
                await asyncio.sleep(60)
            case 1:
                raise ValueError(number)
            case 2:
                raise Ignore
            case 3:
                raise Reject(number)
            case 4 if self.request.retries == 0:
                self.retry()
            case 5:
                asyncio.current_task().cancel()
                await asyncio.sleep(60)

    @queue.task(name="bad_in_thread")
    def bad_in_thread(number):
        nonlocal ended
        ended += 1
        raise ValueError(number)

    async with queue:
        crew = Crew(queue)
        async with Worker(queue, concurrency=CONCURRENCY, threads=THREADS).running():
            for start in range(0, 4500, 500):
                await asyncio.gather(*[bad.delay(number) for number in range(start, start + 500)])
            await asyncio.gather(*[bad_in_thread.delay(number) for number in range(500)])
            await until(lambda: ended == 4500 + 4500 // 6 + 500, patience=100)
            queue.conf.task_ignore_result = False
            await crew.assemble()
        assert await queue.broker.depth(["celery"]) == {"celery": 0}


async def test_cancelled_and_abandoned_ones_leak_no_place():
    """Revoked while they run: coroutines are cancelled, functions are abandoned in their threads."""
    queue = TaskQueue(memory_url())
    started, release = [], threading.Event()

    @queue.task
    async def coroutine():
        started.append("coroutine")
        await asyncio.Event().wait()

    @queue.task
    def plain():
        started.append("plain")
        release.wait(30)

    async with queue:
        crew = Crew(queue)
        try:
            async with Worker(queue, concurrency=CONCURRENCY, threads=THREADS).running():
                for _ in range(5):
                    results = [await coroutine.delay() for _ in range(30)] + [await plain.delay() for _ in range(4)]
                    await until(lambda: len(started) == 34)
                    for result in results:
                        await result.revoke(terminate=True)
                    for result in results:
                        await soon(result.get(propagate=False))
                    started.clear()
                await crew.assemble()
        finally:
            release.set()


async def test_what_is_being_settled_holds_no_place_but_is_not_without_bounds():
    ended = asyncio.Event()

    async def run(job):
        await ended.wait()

    async with Jobs(2, lease=30) as jobs:
        started = [jobs.start(Delivery("q", b"", str(number)), 0.0, run) for number in range(2)]
        assert jobs.room == 0
        for job, room in zip(started, (1, 2), strict=True):
            jobs.settle(job)
            jobs.settle(job)  # again, after a refusal
            assert jobs.room == room
        started += [jobs.start(Delivery("q", b"", str(number)), 0.0, run) for number in range(2, 4)]
        assert jobs.room == 0
        jobs.settle(started[2])
        assert jobs.room == 0  # three are being settled, and one runs
        jobs.leave_behind(started[0])
        assert jobs.room == 1
        ended.set()
        await jobs.wait_idle()
        assert jobs.room == 2
