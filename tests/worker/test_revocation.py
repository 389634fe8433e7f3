"""Revoking tasks: where they wait, while they are parked, while they run."""

from __future__ import annotations

import asyncio
import threading

import pytest

from aioretryq import TaskQueue, TaskRevokedError, Worker
from queues import soon, until


@pytest.fixture
async def queue(url):
    async with TaskQueue(url) as queue:
        yield queue


@pytest.fixture
def work(queue):
    @queue.task
    async def work(name):
        work.ran.append(name)
        return name

    work.ran = []
    return work


async def revoked(result, reason):
    with pytest.raises(TaskRevokedError, match=reason):
        await soon(result.get())
    assert await result.status() == "REVOKED"


async def test_a_task_that_waits_in_the_queue(queue, work):
    dropped, kept = await work.delay("dropped"), await work.delay("kept")
    await dropped.revoke()
    assert await dropped.status() == "REVOKED"
    async with Worker(queue).running():
        assert await soon(kept.get()) == "kept"
        await revoked(dropped, "revoked")
    assert work.ran == ["kept"]
    assert await queue.broker.depth(["celery"]) == {"celery": 0}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_task_that_is_parked(queue, work, when):
    # Long enough for a worker to start, and to do something else, before it is due.
    dropped = await work.apply_async(("dropped",), countdown=0.3 if when == "before" else 3)
    if when == "before":
        await dropped.revoke()
    async with Worker(queue).running():
        await soon((await work.delay("first")).get())
        if when == "after":
            await dropped.revoke()
        await revoked(dropped, "revoked")
        async with asyncio.timeout(15):
            while await queue.broker.depth(["celery"]) != {"celery": 0}:
                await asyncio.sleep(0.001)
        await soon((await work.delay("last")).get())
    assert work.ran == ["first", "last"]


async def test_a_task_that_waits_for_its_retry(queue):
    attempts = asyncio.Queue()

    @queue.task(autoretry_for=(OSError,), default_retry_delay=0.2, max_retries=None)
    async def stubborn():
        attempts.put_nowait(1)
        raise OSError

    async with Worker(queue).running():
        result = await stubborn.delay()
        await soon(attempts.get())
        await result.revoke()
        await revoked(result, "revoked")
        async with asyncio.timeout(15):
            while await queue.broker.depth(["celery"]) != {"celery": 0}:
                await asyncio.sleep(0.001)


async def test_a_running_task_goes_on_unless_terminated(queue):
    started, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @queue.task(track_started=True)
    async def work():
        started.set()
        await go.wait()
        done.set()
        return "finished"

    async with Worker(queue).running():
        result = await work.delay()
        await soon(started.wait())
        await result.revoke()
        assert await result.status() == "STARTED"
        go.set()
        assert await soon(result.get()) == "finished"
        assert done.is_set()


async def test_a_task_of_which_nobody_knows_that_it_runs(queue):
    """Without `track_started` it looks as if it waited: the end of its run is what counts."""
    started, go = asyncio.Event(), asyncio.Event()
    followed = asyncio.Queue()

    @queue.task
    async def work():
        started.set()
        await go.wait()
        return "finished"

    @queue.task
    async def follow(value):
        followed.put_nowait(value)

    async with Worker(queue).running():
        result = await work.apply_async(link=follow.s())
        await soon(started.wait())
        await result.revoke()
        assert await result.status() == "REVOKED"
        go.set()
        assert await soon(followed.get()) == "finished"
        assert await result.status() == "SUCCESS"


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_terminating_a_running_task(queue, kind, caplog):
    started, cancelled = threading.Event(), asyncio.Event()
    let_go = threading.Event()

    @queue.task
    async def coroutine():
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    @queue.task
    def plain():
        started.set()
        let_go.wait(15)

    try:
        async with Worker(queue).running():
            result = await {"coroutine": coroutine, "plain": plain}[kind].delay()
            assert await asyncio.to_thread(started.wait, 15)
            await result.revoke(terminate=True)
            await revoked(result, "terminated")
            await until(lambda: "was not run to its end: terminated" in caplog.text)
            if kind == "coroutine":
                await soon(cancelled.wait())
            async with asyncio.timeout(15):
                while await queue.broker.depth(["celery"]) != {"celery": 0}:
                    await asyncio.sleep(0.001)
    finally:
        let_go.set()


async def test_terminating_when_the_worker_is_full(queue):
    started, cancelled = asyncio.Event(), asyncio.Event()

    @queue.task
    async def endless():
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with Worker(queue, concurrency=1).running():
        result = await endless.delay()
        await soon(started.wait())
        await result.revoke(terminate=True)
        await soon(cancelled.wait())
        await revoked(result, "terminated")


async def test_what_is_done_stays_done(queue, work):
    async with Worker(queue).running():
        result = await work.delay("value")
        await soon(result.get())
        await result.revoke()
        assert await result.status() == "SUCCESS"
        assert await soon(queue.AsyncResult(result.id).get()) == "value"


async def test_a_worker_that_starts_later_knows_too(queue, work, url):
    result = await work.delay("dropped")
    await result.revoke()
    other = TaskQueue(url)
    ran = []

    @other.task(name=work.name)
    async def same(name):
        ran.append(name)

    async with Worker(other).running():
        kept = await work.delay("kept")
        await soon(kept.get())
    assert ran == ["kept"]
