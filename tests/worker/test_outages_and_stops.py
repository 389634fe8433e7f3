"""Stopping while a server is gone, and settling around one that refuses: what was accepted is not lost."""

from __future__ import annotations

import asyncio
import functools
import threading
import time

import pytest

from aioretryq import BackendUnavailable, ProtocolError, TaskQueue, Worker
from aioretryq.message import StoredResult
from aioretryq.worker.executor import Executor
from queues import memory_url, soon, until


@pytest.fixture
def quick(monkeypatch):
    """The patience with completions that cannot be delivered."""
    monkeypatch.setattr("aioretryq.worker.worker.LAST_SETTLEMENTS", 0.05)


class GoneResults:
    """A result backend that cannot be reached until it is `back`."""

    def __init__(self, backend):
        self._backend = backend
        self.back = False
        self.tried = 0

    def __getattr__(self, name):
        return getattr(self._backend, name)

    async def store(self, results):
        self.tried += 1
        if not self.back:
            raise BackendUnavailable("gone")
        return await self._backend.store(results)

    async def fetch(self, task_ids):
        if not self.back:
            raise BackendUnavailable("gone")
        return await self._backend.fetch(task_ids)


async def test_stops_while_the_result_backend_is_gone_are_no_deaths(quick):
    seen = []
    async with TaskQueue(memory_url()) as queue:

        @queue.task(bind=True, max_deliveries=2)
        async def work(self):
            seen.append((self.request.deliveries, self.request.interruptions))
            return "done"

        result = await work.delay()
        gone = queue.results.backend = GoneResults(queue.results.backend)
        for number in range(1, 4):
            async with Worker(queue, grace=0.05).running():
                await until(lambda number=number: len(seen) == number and gone.tried >= number)
            assert await queue.broker.depth(["celery"]) == {"celery": 1}, "it is back at once"
        gone.back = True
        async with Worker(queue).running():
            assert await soon(result.get()) == "done"
    assert seen == [(1, number) for number in range(4)]


async def test_what_stores_nothing_does_not_wait_for_the_result_backend():
    async with TaskQueue(memory_url()) as queue:

        @queue.task
        async def stores():
            return "kept back"

        @queue.task(ignore_result=True)
        async def ignores():
            pass

        gone = queue.results.backend = GoneResults(queue.results.backend)
        async with Worker(queue).running() as worker:
            result = await stores.delay()
            await until(lambda: gone.tried > 0)
            for _ in range(20):
                await ignores.delay()
            await until(lambda: len(worker._jobs) == 1)
            gone.back = True
            assert await soon(result.get()) == "kept back"


async def test_a_plain_function_has_its_thread_before_it_is_acknowledged(url):
    """Acknowledged early, what only waits for a thread would be lost with its worker."""
    began, release = [], threading.Event()
    async with TaskQueue(url, lease=0.5) as queue:

        @queue.task(acks_late=False)
        def work(number):
            began.append(number)
            release.wait(15)

        for number in range(5):
            await work.delay(number)
        running = asyncio.create_task(Worker(queue, threads=1).run())
        try:
            await until(lambda: len(began) == 1)
            running.cancel()  # as if it were killed
            await asyncio.wait([running])
        finally:
            release.set()
        async with Worker(queue).running():
            await until(lambda: len(began) == 5)
    assert sorted(began) == list(range(5))


@pytest.mark.parametrize("acks_late", [True, False])
async def test_a_body_that_cancels_its_task_and_returns_has_failed(url, acks_late):
    runs = []
    async with TaskQueue(url) as queue:

        @queue.task(acks_late=acks_late)
        async def work():
            runs.append(1)
            asyncio.current_task().cancel()
            return 1

        async with Worker(queue).running():
            result = await work.delay()
            with pytest.raises(BaseException, match="has cancelled itself"):
                await soon(result.get())
    assert runs == [1]


async def test_a_worker_whose_clock_is_behind_trusts_the_broker(url, monkeypatch):
    """Parked until it was due, a message is not parked again because this machine's clock is not there yet."""
    ran = []
    async with TaskQueue(url) as queue:

        @queue.task
        async def work():
            ran.append(time.time())

        result = await work.apply_async(countdown=0.3)
        sent = []
        finish = queue.broker.finish

        async def counting(finishes):
            sent.extend(out for each in finishes for out in each.send)
            return await finish(finishes)

        monkeypatch.setattr(queue.broker, "finish", counting)
        behind = functools.partial(Executor, clock=lambda: time.time() - 3600)
        monkeypatch.setattr("aioretryq.worker.worker.Executor", behind)
        async with Worker(queue).running():
            await soon(result.get())
    assert len(ran) == len(sent) == 1


async def test_an_unreadable_result_counts_as_none(url, caplog):
    async with TaskQueue(url, lease=0.4) as queue:

        @queue.task
        async def work():
            return "ran"

        result = await work.delay()
        await queue.broker.claim(["celery"], limit=1)  # by somebody who dies with it
        await queue.results.backend.store([StoredResult(result.id, "RETRY", b"\x80\x05pickled")])
        async with Worker(queue).running():
            assert await soon(readable(result)) == "ran"
        assert await queue.broker.dead_count() == 0
    assert "cannot be read, and counts as none" in caplog.text


async def readable(result):
    while True:
        try:
            return await result.get()
        except ProtocolError:
            await asyncio.sleep(0.01)
