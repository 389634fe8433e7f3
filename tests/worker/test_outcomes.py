"""What becomes of a message, besides success, failure and retry; on each broker."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from aioretryq import (
    EncodeError,
    Ignore,
    Reject,
    RemoteTaskError,
    TaskQueue,
    TaskRevokedError,
    TimeLimitExceeded,
    Worker,
)
from queues import dead_letters, soon, until


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


async def test_ignore_acknowledges_and_stores_nothing(queue, worker):
    ran = asyncio.Event()

    @queue.task
    async def work():
        ran.set()
        raise Ignore

    result = await work.delay()
    await soon(ran.wait())
    await soon((await queue.send_task("alive")).get())
    assert await result.status() == "PENDING"
    assert await queue.broker.dead() == []


async def test_reject_is_a_failure_and_a_dead_letter(queue, worker):
    @queue.task
    async def work(x):
        raise Reject("poison")

    result = await work.delay(1)
    with pytest.raises(Reject, match="poison"):
        await soon(result.get())
    assert await result.status() == "FAILURE"
    (letter,) = await dead_letters(queue, 1)
    assert (letter.reason, letter.queue, letter.task, letter.task_id) == ("rejected", "celery", work.name, result.id)
    assert "poison" in letter.error
    assert letter.worker == worker.name
    assert result.id.encode() in letter.payload


async def test_reject_with_requeue_comes_again(queue, worker):
    seen = []

    @queue.task(bind=True)
    async def work(self):
        seen.append((self.request.id, self.request.retries))
        if len(seen) == 1:
            raise Reject("not me", requeue=True)
        return "second"

    result = await work.delay()
    assert await soon(result.get()) == "second"
    assert seen == [(result.id, 0)] * 2
    assert await queue.broker.dead() == []


async def test_expired_before_it_could_run(queue):
    ran = []

    @queue.task
    async def work():
        ran.append(1)

    results = [
        await work.apply_async(expires=0.01),
        await work.apply_async(expires=datetime.now(UTC) - timedelta(hours=1)),
        await work.apply_async(expires=0.1, countdown=0.2),
    ]
    fresh = await work.apply_async(expires=600)
    await asyncio.sleep(0.02)
    async with Worker(queue).running():
        await soon(fresh.get())
        for result in results:
            with pytest.raises(TaskRevokedError, match="expired"):
                await soon(result.get())
            assert await result.status() == "REVOKED"
    assert ran == [1]


async def test_nothing_runs_before_its_time(queue, worker):
    moments = {}

    @queue.task
    async def work(name):
        moments[name] = time.time()

    results = [
        await work.apply_async(("past",), eta=datetime.now(UTC) - timedelta(days=1)),
        await work.apply_async(("now",), countdown=0),
    ]
    before = time.time()
    results += [
        await work.apply_async(("countdown",), countdown=0.3),
        await work.apply_async(("eta",), eta=datetime.now(UTC) + timedelta(seconds=0.3)),
        await work.apply_async(("naive",), eta=datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=0.3)),
    ]
    for result in results:
        await soon(result.get())
    for name in ("countdown", "eta", "naive"):
        assert 0.3 <= moments[name] - before < 5, name
    assert max(moments["past"], moments["now"]) < min(moments[name] for name in ("countdown", "eta", "naive"))


async def test_time_limit_of_a_coroutine(queue, worker):
    cleaned = asyncio.Event()

    @queue.task(time_limit=0.1)
    async def endless():
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    @queue.task
    async def unlimited():
        await asyncio.Event().wait()

    for result in (await endless.delay(), await unlimited.apply_async(time_limit=0.1)):
        with pytest.raises(TimeLimitExceeded):
            await soon(result.get())
        assert await result.status() == "FAILURE"
    assert cleaned.is_set()


async def test_a_time_limit_may_be_retried(queue, worker):
    @queue.task(bind=True, time_limit=0.05, autoretry_for=(TimeLimitExceeded,), default_retry_delay=0.01)
    async def work(self):
        if self.request.retries == 0:
            await asyncio.Event().wait()
        return self.request.retries

    assert await soon((await work.delay()).get()) == 1


async def test_values_that_cannot_be_stored_are_failures(queue, worker):
    queue.conf.max_payload_bytes = 100_000

    @queue.task
    async def work(kind):
        endless = []
        endless.append(endless)
        return {
            "object": object(),
            "nested": {"x": [object()]},
            "circle": endless,
            "large": "x" * 200_000,
            "lambda": lambda: None,
            "nan": None,
        }[kind]

    for kind in ("object", "nested", "circle", "large", "lambda"):
        with pytest.raises(EncodeError):
            await soon((await work.delay(kind)).get())
    assert await soon((await work.delay("nan")).get()) is None


class BrokenText(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class BareError(BaseException):
    """Not an Exception."""


async def test_whatever_a_task_raises_is_its_own_failure(queue, worker):
    def surrogate():
        raise ValueError("\ud800")

    def own(error):
        raise error

    raising = {
        "cancelled": lambda: own(asyncio.CancelledError("mine")),
        "exit": lambda: own(SystemExit(3)),
        "broken": lambda: own(BrokenText(object())),
        "bare": lambda: own(BareError("bare")),
        "stop": lambda: own(StopIteration(1)),
        "group": lambda: own(ExceptionGroup("several", [ValueError(1), OSError(2)])),
        "bare group": lambda: own(BaseExceptionGroup("several", [SystemExit(1)])),
        "surrogate": surrogate,
        "recursion": lambda: raising["recursion"](),
        "memory": lambda: own(MemoryError()),
    }

    @queue.task
    async def coroutine(name):
        raising[name]()

    @queue.task
    def plain(name):
        raising[name]()

    for task in (coroutine, plain):
        for name in raising:
            result = await task.delay(name)
            error = await soon(result.get(propagate=False))
            assert isinstance(error, Exception | asyncio.CancelledError), name
            assert await result.status() == "FAILURE", name
    assert await soon((await coroutine.delay("exit")).get(propagate=False)) is not None
    with pytest.raises(RemoteTaskError):
        await soon((await plain.delay("exit")).get())


async def test_something_a_task_awaited_was_cancelled(queue, worker):
    @queue.task
    async def work():
        inner = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        inner.cancel()
        await inner

    result = await work.delay()
    await soon(result.get(propagate=False))
    assert await result.status() == "FAILURE"


async def test_rejects_with_odd_reasons(queue, worker):
    reasons = [None, BrokenText(), object(), "\ud800", b"\xff", {"a": {1}}]

    @queue.task
    async def work(number):
        raise Reject(reasons[number])

    for number in range(len(reasons)):
        result = await work.delay(number)
        assert isinstance(await soon(result.get(propagate=False)), Reject)
    await dead_letters(queue, len(reasons))


async def test_a_task_that_nobody_knows_runs_when_a_worker_comes_that_does(queue, url):
    result = await queue.send_task("known.elsewhere", (1,))
    other = TaskQueue(url)

    @other.task(name="known.elsewhere")
    async def known(x):
        return x + 1

    async with Worker(queue).running():
        await soon((await queue.send_task("alive")).get())
        assert await result.status() == "PENDING"
        async with asyncio.timeout(15):
            while await queue.broker.depth(["celery"]) != {"celery": 1}:
                await asyncio.sleep(0.001)
    async with Worker(other).running():
        assert await soon(result.get()) == 2
    assert await queue.broker.dead() == []


async def test_tasks_of_two_priorities(queue):
    order = []

    @queue.task
    async def work(name):
        order.append(name)

    results = [await work.apply_async((f"{priority}",), priority=priority) for priority in (9, 3, 0, 6)]
    async with Worker(queue, concurrency=1).running():
        for result in results:
            await soon(result.get())
    assert order == ["0", "3", "6", "9"]


async def test_accounting_of_many(queue):
    """Whatever happens to them: every message ends in exactly one way."""
    ran = []

    @queue.task(bind=True, max_retries=2, default_retry_delay=0.01)
    async def work(self, number):
        ran.append(number)
        match number % 6:
            case 1:
                raise ValueError(number)
            case 2:
                raise Reject(number)
            case 3:
                raise Ignore
            case 4:
                self.retry(exc=OSError(number))
            case 5:
                return object()
        return number

    results = [await work.delay(number) for number in range(120)]
    async with Worker(queue, concurrency=30).running() as worker:
        finals = [await soon(result.get(propagate=False)) for result in results if results.index(result) % 6 != 3]
        await until(lambda: len(ran) == 120 + 40)
    assert worker.name
    assert len(finals) == 100
    statuses = [await result.status() for result in results]
    assert [statuses.count(name) for name in ("SUCCESS", "FAILURE", "PENDING")] == [20, 80, 20]
    await dead_letters(queue, 20)
