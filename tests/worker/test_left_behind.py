"""Tasks that do not let themselves be cancelled, or cancel themselves, on each broker."""

from __future__ import annotations

import asyncio

import pytest

from aioretryq import BrokerUnavailable, TaskQueue, Worker, current_task
from queues import soon, until


@pytest.fixture
async def queue(url):
    async with TaskQueue(url) as queue:
        yield queue


@pytest.fixture
def quick(monkeypatch):
    """The patience with a task that was cancelled."""
    monkeypatch.setattr("aioretryq.worker.worker.LAST_SETTLEMENTS", 0.05)


async def test_a_coroutine_that_swallows_its_cancellation_does_not_hold_the_worker(queue, quick, caplog):
    started, end = [], asyncio.Event()

    @queue.task
    async def stubborn():
        started.append(asyncio.current_task())
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    result = await stubborn.delay()
    worker = Worker(queue, grace=0)
    running = asyncio.create_task(worker.run())
    await until(lambda: len(started) == 1)
    worker.stop()
    await soon(running)
    assert worker.left_behind
    assert await queue.broker.depth(["celery"]) == {"celery": 1}, "others can have it"
    assert f"[{result.id}] swallows its cancellation and is left behind" in caplog.text
    end.set()
    await asyncio.wait(started)
    assert await result.status() == "PENDING", "nothing of what it still did counts"
    async with Worker(queue).running():
        assert await soon(result.get()) == "too late"
    assert len(started) == 2


async def test_a_task_that_cancels_itself_has_failed(queue):
    runs = []

    @queue.task
    async def suicidal():
        runs.append(1)
        asyncio.current_task().cancel()
        await asyncio.sleep(60)

    @queue.task
    async def alive():
        return True

    async with Worker(queue).running():
        result = await suicidal.delay()
        with pytest.raises(BaseException, match="has cancelled itself"):
            await soon(result.get())
        assert await soon((await alive.delay()).get())
    assert runs == [1]
    assert await queue.broker.depth(["celery"]) == {"celery": 0}


async def test_a_stopping_worker_tells_its_tasks_why(queue):
    told, started = [], asyncio.Event()

    @queue.task
    async def work():
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            told.append((error.args, current_task().request.cancel_reason))
            raise

    await work.delay()
    worker = Worker(queue, grace=0)
    running = asyncio.create_task(worker.run())
    await soon(started.wait())
    worker.stop()
    await soon(running)
    assert told == [(("SHUTDOWN",), "SHUTDOWN")]


async def test_stop_now_gives_no_grace(queue):
    started = asyncio.Event()

    @queue.task
    async def work():
        started.set()
        await asyncio.Event().wait()

    await work.delay()
    worker = Worker(queue, grace=3600)
    running = asyncio.create_task(worker.run())
    await soon(started.wait())
    worker.stop(now=True)
    await soon(running)
    assert await queue.broker.depth(["celery"]) == {"celery": 1}


async def test_a_worker_that_waits_for_its_broker_can_be_stopped():
    queue = TaskQueue("redis://127.0.0.1:1/0")
    worker = Worker(queue)
    running = asyncio.create_task(worker.run())
    done, _ = await asyncio.wait([running], timeout=0.2)
    assert not done
    worker.stop()
    await soon(running)


async def test_without_retry_on_startup_a_missing_broker_is_an_error():
    queue = TaskQueue("redis://127.0.0.1:1/0", broker_connection_retry_on_startup=False)
    with pytest.raises(BrokerUnavailable, match="Cannot reach Redis"):
        await Worker(queue).run()
