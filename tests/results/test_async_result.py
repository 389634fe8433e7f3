"""Results as callers hold them, on each broker."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from aioretryq import (
    ConfigError,
    NotOpenError,
    RemoteTaskError,
    ResultTimeout,
    Retry,
    TaskQueue,
    Worker,
)
from aioretryq.protocol.result import ResultDocument
from queues import memory_url, soon, until


class OutOfStock(Exception):
    """Known to workers and callers of this file."""


@pytest.fixture
async def queue(url):
    async with TaskQueue(url) as queue:
        yield queue


@pytest.fixture
async def worker(queue):
    async with Worker(queue).running() as worker:
        yield worker


def put(queue, task_id, status="SUCCESS", result=None, **more):
    document = ResultDocument(task_id=task_id, status=status, result=result, **more)
    return queue.results.store([queue.results.record(document)])


def idle(queue):
    consumer = queue.connections.consumer
    return until(lambda: consumer.watching == consumer.subscribed == 0)


async def test_value_and_everything_known_of_it(queue, worker):
    @queue.task
    async def work(x):
        return {"x": x, "at": datetime(2030, 1, 1, tzinfo=UTC)}

    result = await work.delay(3)
    assert await soon(result.get(timeout=15)) == {"x": 3, "at": datetime(2030, 1, 1, tzinfo=UTC)}
    assert (await result)["x"] == 3
    again = queue.AsyncResult(result.id)
    assert again == result
    assert await again.get() == await again.result() == await again.info()
    assert await again.status() == await again.state() == "SUCCESS"
    assert (await again.ready(), await again.successful(), await again.failed()) == (True, True, False)
    assert datetime.fromisoformat(await again.date_done()).tzinfo is not None
    assert await again.traceback() is None
    await idle(queue)


async def test_the_tasks_own_exception_is_raised(queue, worker):
    @queue.task
    async def work():
        raise OutOfStock("none left", 7)

    @queue.task
    def unknown():
        raise type("Elsewhere", (Exception,), {"__module__": "not_loaded"})("far")

    result = await work.delay()
    with pytest.raises(OutOfStock) as raised:
        await soon(result.get())
    assert raised.value.args == ("none left", 7)
    assert isinstance(await result.get(propagate=False), OutOfStock)
    assert isinstance(await result.result(), OutOfStock)
    assert "OutOfStock" in await result.traceback()
    assert "raise OutOfStock" in await result.traceback()
    assert (await result.ready(), await result.successful(), await result.failed()) == (True, False, True)
    with pytest.raises(RemoteTaskError, match="far") as raised:
        await soon((await unknown.delay()).get())
    assert type(raised.value).__name__ == "Elsewhere"


async def test_unknown_is_pending(queue):
    result = queue.AsyncResult("unknown")
    assert await result.status() == "PENDING"
    assert await result.result() is None
    assert await result.children() == []
    assert (await result.ready(), await result.successful(), await result.failed()) == (False, False, False)


async def test_timeout(queue):
    started = time.monotonic()
    with pytest.raises(ResultTimeout, match="nobody"):
        await queue.AsyncResult("nobody").get(timeout=0.2)
    with pytest.raises(TimeoutError):
        await queue.AsyncResult("nobody").get(timeout=0)
    assert 0.19 < time.monotonic() - started < 5
    await idle(queue)


async def test_a_timeout_of_zero_looks_once(queue, worker):
    @queue.task
    async def work():
        return 42

    @queue.task
    async def fail():
        raise OutOfStock("sold out")

    done, failed = await work.delay(), await fail.delay()
    await soon(done)
    await soon(failed.get(propagate=False))
    assert await soon(queue.AsyncResult(done.id).get(timeout=0)) == 42
    with pytest.raises(OutOfStock):
        await soon(queue.AsyncResult(failed.id).get(timeout=0))
    with pytest.raises(ResultTimeout, match="within 0 s"):
        await soon(queue.AsyncResult("unknown").get(timeout=0))


@pytest.mark.parametrize("task_id", [7, None, b"id"])
async def test_an_id_that_is_no_text(queue, task_id):
    with pytest.raises(TypeError, match="is a text"):
        queue.AsyncResult(task_id)


async def test_an_id_that_no_server_could_be_asked_for(queue):
    with pytest.raises(ValueError, match="can be sent to a server"):
        queue.AsyncResult("\ud800")


async def test_a_tasks_own_timeout_error_is_not_ours(queue, worker):
    @queue.task
    async def work():
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own") as raised:
        await soon((await work.delay()).get(timeout=15))
    assert type(raised.value) is TimeoutError


async def test_forget(queue):
    await put(queue, "a", result=1)
    result = queue.AsyncResult("a")
    assert await soon(result.get()) == 1
    await result.forget()
    assert await result.status() == "PENDING"


async def test_updates_of_a_task(queue, worker):
    go = asyncio.Event()

    @queue.task(bind=True, track_started=True)
    async def work(self):
        await go.wait()
        if self.request.retries == 0:
            raise Retry(exc=OutOfStock("later"), when=0.2)
        await self.update_state(state="PROGRESS", meta={"percent": 50})
        return "done"

    result = await work.delay()
    seen = []
    async with asyncio.timeout(15):
        async for update in result.updates():
            seen.append(update)
            go.set()
    assert seen[0].status == "STARTED"
    assert (seen[-1].status, seen[-1].result) == ("SUCCESS", "done")
    assert {update.status for update in seen} <= {"STARTED", "RETRY", "PROGRESS", "SUCCESS"}
    for update in seen:
        if update.status == "RETRY":
            assert isinstance(update.result, OutOfStock)
    await idle(queue)


async def test_updates_end_with_a_failure_instead_of_raising(queue):
    await put(queue, "a", "FAILURE", {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"})
    seen = [update async for update in queue.AsyncResult("a").updates()]
    assert [(update.status, repr(update.result)) for update in seen] == [("FAILURE", "ValueError('no')")]


async def test_leaving_updates_early_leaks_nothing(queue):
    await put(queue, "a", "STARTED")
    async for update in queue.AsyncResult("a").updates():
        assert update.status == "STARTED"
        break
    await idle(queue)


async def test_ten_thousand_waiters(queue):
    count = 10_000
    ids = [f"task-{number}" for number in range(count)]
    waiting = [asyncio.create_task(queue.AsyncResult(task_id).get()) for task_id in ids]
    consumer = queue.connections.consumer
    await until(lambda: consumer.subscribed == count)
    for task in waiting[::3]:
        task.cancel()
    documents = [ResultDocument(task_id=task_id, status="SUCCESS", result=task_id) for task_id in ids]
    for start in range(0, count, 1000):
        await queue.results.store([queue.results.record(doc) for doc in documents[start : start + 1000]])
    values = await soon(asyncio.gather(*waiting, return_exceptions=True))
    for number, value in enumerate(values):
        if number % 3:
            assert value == ids[number]
        else:
            assert isinstance(value, asyncio.CancelledError)
    await idle(queue)


async def test_closing_the_queue_while_someone_waits(url):
    queue = TaskQueue(url)
    async with queue:
        result = queue.AsyncResult("never")
        waiting = [asyncio.create_task(result.get(timeout=None)) for _ in range(3)]
        await until(lambda: queue.connections.consumer.subscribed == 1)
    for task in waiting:
        with pytest.raises(NotOpenError, match="closed"):
            await soon(task)
    with pytest.raises(NotOpenError, match="async with queue"):
        await result.get()


async def test_two_queues_on_one_place_see_each_others_results(url):
    async with TaskQueue(url) as one, TaskQueue(url) as two:
        waiting = asyncio.create_task(two.AsyncResult("a").get())
        await until(lambda: two.connections.consumer.subscribed == 1)
        await put(one, "a", result=5)
        assert await soon(waiting) == 5


# -- one broker is enough for the rest


async def test_ignored_results_are_not_waited_for():
    async with TaskQueue(memory_url()) as queue, Worker(queue).running():

        @queue.task(ignore_result=True)
        async def silent():
            return 1

        @queue.task
        async def loud():
            return 2

        assert await soon((await silent.delay()).get()) is None
        assert await soon((await loud.apply_async(ignore_result=True)).get()) is None
        assert await soon((await silent.apply_async(ignore_result=False)).get()) == 1
        async with asyncio.timeout(5):
            assert [update async for update in (await silent.delay()).updates()] == []


async def test_a_disabled_backend_says_what_to_set():
    async with TaskQueue(memory_url(), backend="disabled") as queue, Worker(queue).running():
        ran = asyncio.Event()

        @queue.task(bind=True, track_started=True)
        async def work(self):
            await self.update_state(state="PROGRESS")
            ran.set()

        result = await work.delay()
        await soon(ran.wait())
        await result.revoke()
        for operation in (result.get, result.status, result.result, result.ready, result.forget, result.children):
            with pytest.raises(ConfigError, match="result_backend"):
                await soon(operation())
        with pytest.raises(ConfigError, match="result_backend"):
            async for _ in result.updates():
                pass


async def test_a_cached_result_is_known_without_the_backend():
    async with TaskQueue(memory_url(), result_cache_max=10) as queue:
        await put(queue, "a", result=1)
        result = queue.AsyncResult("a")
        assert await soon(result.get()) == 1
        await queue.results.backend.forget(["a"])
        assert await result.status() == "SUCCESS"
        assert await soon(result.get(timeout=1)) == 1
        assert [update.status async for update in result.updates()] == ["SUCCESS"]
        await result.forget()
        assert await result.status() == "PENDING"


async def test_extended_results():
    async with TaskQueue(memory_url(), result_extended=True) as queue, Worker(queue, name="w1").running():

        @queue.task
        async def work(x, *, y):
            return x + y

        result = await work.delay(1, y=2)
        assert await soon(result.get()) == 3
        assert await result.name() == work.name
        assert await result.args() == [1]
        assert await result.kwargs() == {"y": 2}
        assert (await result.worker()).startswith("w1@")
        assert await result.retries() == 0
        assert await result.queue() == "celery"


async def test_a_queue_that_several_tasks_open_at_once_is_opened_once(redis_url):
    queue = TaskQueue(redis_url)
    async with queue:
        pass  # opened and closed before
    both_in = asyncio.Barrier(5)

    async def enter():
        async with queue:
            await both_in.wait()
            return queue.connections

    assert len({id(found) for found in await soon(asyncio.gather(*[enter() for _ in range(5)]))}) == 1
    with pytest.raises(NotOpenError):
        assert queue.connections
