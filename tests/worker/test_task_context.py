"""What a running task can see and say: its request, its states, its children; on each broker."""

from __future__ import annotations

import asyncio

import pytest

from aioretryq import (
    TaskQueue,
    TimeLimitExceeded,
    Worker,
    shared_task,
)
from queues import soon, until


@pytest.fixture
async def queue(url):
    async with TaskQueue(url, unknown_task_delay=0.05) as queue:

        @queue.task(name="alive")
        async def alive():
            return True

        yield queue
        # Whatever a test did to the worker: nothing is left behind.
        assert await queue.broker.depth(["celery"]) == {"celery": 0}


@pytest.fixture
async def worker(queue):
    async with Worker(queue).running() as worker:
        yield worker
        assert await soon((await queue.send_task("alive")).get())


async def test_update_state_and_updates(queue, worker):
    steps = asyncio.Queue()

    @queue.task(bind=True)
    async def work(self):
        for percent in (10, 50):
            await self.update_state(state="PROGRESS", meta={"percent": percent})
            await steps.get()
        await self.update_state(meta={"percent": 99})
        await steps.get()
        return "done"

    result = await work.delay()
    seen = []
    async with asyncio.timeout(15):
        async for update in result.updates():
            seen.append((update.status, update.result))
            steps.put_nowait(1)
    assert seen == [
        ("PROGRESS", {"percent": 10}),
        ("PROGRESS", {"percent": 50}),
        ("PROGRESS", {"percent": 99}),
        ("SUCCESS", "done"),
    ]


async def test_started_says_who(queue, worker):
    go = asyncio.Event()

    @queue.task(track_started=True)
    async def work():
        await go.wait()

    result = await work.delay()
    async for update in result.updates():
        if update.status == "STARTED":
            assert update.result["hostname"] == worker.name
            assert await result.status() == "STARTED"
            assert not await result.ready()
            go.set()
    assert await result.status() == "SUCCESS"


async def test_children(queue, worker):
    @queue.task(bind=True)
    async def child(self):
        return [self.request.parent_id, self.request.root_id]

    @queue.task(bind=True)
    async def parent(self):
        sent = [await child.delay(), await queue.send_task(child.name)]
        return [result.id for result in sent]

    @queue.task(trail=False)
    async def childless():
        await child.delay()

    result = await parent.delay()
    ids = await soon(result.get())
    children = await result.children()
    assert [each.id for each in children] == ids
    assert [each.parent for each in children] == [None, None]  # a parent is the step before, in a chain
    for each in children:
        assert await soon(each.get()) == [result.id, result.id]
    other = await childless.delay()
    await soon(other.get())
    assert await other.children() == []


async def test_ignored_results_are_not_stored_but_errors_may_be(queue, worker):
    @queue.task(ignore_result=True)
    async def silent(fail):
        if fail:
            raise ValueError

    @queue.task(ignore_result=True, store_errors_even_if_ignored=True)
    async def complaining(fail):
        if fail:
            raise ValueError("kept")

    sent = [await task.delay(fail) for task in (silent, complaining) for fail in (False, True)]
    await queue.AsyncResult((await queue.send_task("alive")).id).get()

    async def statuses():
        return [await result.status() for result in sent]

    async with asyncio.timeout(15):
        while (await statuses())[3] == "PENDING":
            await asyncio.sleep(0.001)
    assert await statuses() == ["PENDING", "PENDING", "PENDING", "FAILURE"]


async def test_shared_tasks_belong_to_the_queue_whose_worker_runs_them(queue, worker, url):
    @shared_task(name="library.child")
    async def child():
        return "child"

    @shared_task(name="library.parent", bind=True)
    async def parent(self):
        await self.update_state(state="PROGRESS")
        return (await child.delay()).id, self.app is queue

    TaskQueue(url)  # the newest one, which nobody opens
    result = await queue.send_task("library.parent")
    child_id, right = await soon(result.get())
    assert right
    assert await soon(queue.AsyncResult(child_id).get()) == "child"


async def test_the_request_of_a_run(queue, worker):
    seen = []

    @queue.task(bind=True, ignore_result=True, time_limit=60)
    async def work(self, x, y):
        seen.append(self.request)

    result = await work.apply_async((1,), {"y": 2}, headers={"tenant": "a"}, priority=3, time_limit=30)
    await until(lambda: seen)
    (request,) = seen
    assert (request.id, request.task, request.args, request.kwargs) == (result.id, work.name, [1], {"y": 2})
    assert (request.root_id, request.parent_id, request.retries) == (result.id, None, 0)
    assert (request.headers, request.hostname, request.time_limit) == ({"tenant": "a"}, worker.name, 30)
    assert (request.ignore_result, request.is_eager, request.called_directly) == (True, False, False)
    assert request.delivery_info == {
        "exchange": "", "routing_key": "celery", "priority": 3, "redelivered": False,
    }  # fmt: skip
    assert request.correlation_id == result.id
    assert (request.timelimit, request.argsrepr, request.kwargsrepr) == ([30, None], "(1,)", "{'y': 2}")
    assert (request.lang, request.utc, request.redelivered) == ("py", True, False)
    assert request.properties == {
        "correlation_id": result.id,
        "reply_to": request.reply_to,
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "priority": 3,
    }


async def test_a_shared_task_has_the_limit_of_the_queue_that_runs_it(queue, worker, url):
    queue.conf.task_time_limit = 0.05

    @shared_task(name="library.slow")
    async def slow():
        await asyncio.Event().wait()

    TaskQueue(url)  # the newest one, which has no limit
    result = await queue.send_task("library.slow")
    with pytest.raises(TimeLimitExceeded):
        await soon(result.get())


async def test_what_is_set_while_a_worker_runs_holds_from_then_on(queue, worker):
    @queue.task(name="other")
    async def other():
        return 1

    @queue.task(name="waiting")
    async def waiting():
        await asyncio.sleep(0.2)
        raise ValueError("too late")

    async def outcome():
        with pytest.raises((ValueError, TimeLimitExceeded)) as caught:
            await soon((await queue.send_task("waiting")).get())
        return caught.type, await queue.dead_letters.count()

    assert await outcome() == (ValueError, 0)
    queue.conf.task_dead_letter = True
    assert await outcome() == (ValueError, 1)
    waiting.dead_letter = False
    assert await outcome() == (ValueError, 1)
    waiting.time_limit = 0.05
    assert await outcome() == (TimeLimitExceeded, 1)

    @queue.task(name="waiting", dead_letter=True)
    async def newer():
        raise ValueError("at once")

    assert await outcome() == (ValueError, 2)
