"""Acknowledgement, leases, concurrency and threads; on each broker."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import anyio
import pytest

from aioretryq import BackendUnavailable, TaskQueue, Worker, current_task
from aioretryq.message import StoredResult
from queues import memory_url, soon, until

LEASE = 0.7


@pytest.fixture
async def queue(url):
    async with TaskQueue(url, lease=LEASE) as queue:
        yield queue


async def comes_back(url):
    """Whether a message that somebody held is in the queue again, some time after its lease has ended."""
    async with TaskQueue(url, lease=LEASE) as other:
        with anyio.move_on_after(3 * LEASE):
            while True:
                await other.broker.recover()
                if (await other.broker.depth(["celery"]))["celery"]:
                    return True
                await asyncio.sleep(0.01)
    return False


async def crash(worker_task):
    """Stop without grace: nothing is handed back, as when a process is killed."""
    worker_task.cancel()
    await asyncio.wait([worker_task])


@pytest.mark.parametrize("acks_late", [True, False])
async def test_a_crash_in_the_middle_of_a_task(queue, url, acks_late):
    started, runs = asyncio.Event(), []

    @queue.task(acks_late=acks_late)
    async def work():
        runs.append(current_task().request.delivery_info["redelivered"])
        started.set()
        if len(runs) == 1:
            await asyncio.Event().wait()
        return "second time"

    result = await work.delay()
    running = asyncio.create_task(Worker(queue).run())
    await soon(started.wait())
    assert await queue.broker.depth(["celery"]) == {"celery": 0}
    await crash(running)
    if acks_late:
        async with Worker(queue).running():
            assert await soon(result.get()) == "second time"
        assert runs == [False, True]
    else:
        assert not await comes_back(url)
        assert runs == [False]


async def test_a_task_longer_than_its_lease_runs_once(queue, url):
    runs, go = [], asyncio.Event()

    @queue.task
    async def work():
        runs.append(1)
        await go.wait()
        return "done"

    async with Worker(queue).running():
        result = await work.delay()
        await until(lambda: runs == [1])
        assert not await comes_back(url)  # somebody else looks for messages of the dead, for three leases
        go.set()
        assert await soon(result.get()) == "done"
    assert runs == [1]
    assert not await comes_back(url)


async def test_a_plain_function_longer_than_its_lease_runs_once(queue, url):
    runs, go = [], threading.Event()

    @queue.task
    def work():
        runs.append(1)
        go.wait(15)
        return "done"

    async with Worker(queue).running():
        result = await work.delay()
        await until(lambda: runs == [1])
        try:
            assert not await comes_back(url)
        finally:
            go.set()
        assert await soon(result.get()) == "done"
    assert runs == [1]


async def test_a_redelivered_task_that_is_done_only_gets_acknowledged(queue, url, caplog):
    """The worker died between storing the result and acknowledging."""
    ran = []

    @queue.task
    async def work():
        ran.append(1)

    result = await work.delay()
    await queue.broker.claim(["celery"], limit=1)
    document = b'{"status": "SUCCESS", "result": "stored before the crash", "task_id": "%s"}' % result.id.encode()
    await store_raw(queue, result.id, document)
    async with Worker(queue).running() as worker:
        await until(lambda: "are back in their queues" in caplog.text and len(worker._jobs) == 0)
        await until_empty(queue)
        assert await soon(result.get()) == "stored before the crash"
    assert ran == []
    assert not await comes_back(url)


async def store_raw(queue, task_id, document, state="SUCCESS"):
    await queue.results.store([StoredResult(task_id, state, document)])


async def until_empty(queue):
    async with asyncio.timeout(15):
        while await queue.broker.depth(["celery"]) != {"celery": 0}:
            await asyncio.sleep(0.001)


async def test_no_more_at_once_than_wanted(queue):
    now, most, go = 0, 0, asyncio.Event()

    @queue.task
    async def work():
        nonlocal now, most
        now += 1
        most = max(most, now)
        await go.wait()
        now -= 1

    results = [await work.delay() for _ in range(12)]
    async with Worker(queue, concurrency=3).running():
        await until(lambda: now == 3)
        assert await queue.broker.depth(["celery"]) == {"celery": 9}, "nothing is hoarded"
        go.set()
        for result in results:
            await soon(result.get())
    assert most == 3


async def test_plain_functions_have_their_own_limit(queue):
    lock, running, most = threading.Lock(), 0, 0
    go = threading.Event()

    @queue.task
    def plain():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait(15)
        with lock:
            running -= 1
        return threading.current_thread() is threading.main_thread()

    @queue.task
    async def coroutine():
        return "not held up"

    try:
        async with Worker(queue, concurrency=20, threads=2).running():
            results = [await plain.delay() for _ in range(6)]
            await until(lambda: running == 2)
            assert await soon((await coroutine.delay()).get()) == "not held up"
            assert running == 2
            go.set()
            assert [await soon(result.get()) for result in results] == [False] * 6
    finally:
        go.set()
    assert most == 2


async def test_two_workers_share_without_running_anything_twice(queue, url):
    ran = Counter()

    def define(on):
        @on.task(name="work")
        async def work(number):
            ran[number] += 1
            await asyncio.sleep(0)
            return number

    define(queue)
    other = TaskQueue(url, lease=LEASE)
    define(other)
    async with Worker(queue, concurrency=5).running(), Worker(other, concurrency=5).running():
        results = await asyncio.gather(*[queue.send_task("work", (number,)) for number in range(200)])
        assert await soon(asyncio.gather(*[result.get() for result in results])) == list(range(200))
    assert set(ran.values()) == {1}
    assert len(ran) == 200


async def test_a_worker_serves_the_queues_it_is_given(queue):
    @queue.task
    async def where():
        return current_task().request.delivery_info["routing_key"]

    async with Worker(queue, queues=["a", "b"]).running():
        for name in ("a", "b"):
            assert await soon((await where.apply_async(queue=name)).get()) == name
        await where.delay()
        assert await queue.broker.depth(["celery"]) == {"celery": 1}


# -- an outage of one server must not cost a message


class AwayResults:
    """A result backend that is away for its first reads."""

    def __init__(self, backend, failures):
        self.backend = backend
        self.failures = failures

    def __getattr__(self, name):
        return getattr(self.backend, name)

    async def fetch(self, task_ids):
        if self.failures:
            self.failures -= 1
            raise BackendUnavailable("gone for a moment")
        return await self.backend.fetch(task_ids)


async def test_a_redelivered_task_waits_for_the_result_backend(caplog):
    async with TaskQueue(memory_url(), lease=LEASE) as queue:

        @queue.task
        async def work():
            return "ran"

        result = await work.delay()
        await queue.broker.claim(["celery"], limit=1)  # by a worker that dies with it
        away = queue.results.backend = AwayResults(queue.results.backend, 3)
        async with Worker(queue).running():
            assert await soon(result.get()) == "ran"
        assert away.failures == 0
        assert await queue.broker.dead() == []
