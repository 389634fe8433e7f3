"""Hooks of a base class, in a worker."""

from __future__ import annotations

import asyncio
import threading

import pytest

from aioretryq import ExceptionInfo, Ignore, Task, TaskQueue, Worker
from queues import memory_url, soon


@pytest.fixture
async def queue():
    async with TaskQueue(memory_url()) as queue, Worker(queue).running():
        yield queue


class Recording(Task):
    """Calls every `super()`, and awaits what it returns."""

    async def before_start(self, task_id, args, kwargs):
        self.calls.append(("before_start", task_id, args, kwargs))
        await super().before_start(task_id, args, kwargs)

    async def on_success(self, retval, task_id, args, kwargs):
        self.calls.append(("on_success", retval, task_id, args, kwargs))
        await super().on_success(retval, task_id, args, kwargs)

    async def on_retry(self, exc, task_id, args, kwargs, einfo):
        self.calls.append(("on_retry", exc, task_id, args, kwargs, einfo))
        await super().on_retry(exc, task_id, args, kwargs, einfo)

    async def on_failure(self, exc, task_id, args, kwargs, einfo):
        self.calls.append(("on_failure", exc, task_id, args, kwargs, einfo))
        await super().on_failure(exc, task_id, args, kwargs, einfo)

    async def after_return(self, status, retval, task_id, args, kwargs, einfo):
        self.calls.append(("after_return", status, retval, task_id, args, kwargs, einfo))
        await super().after_return(status, retval, task_id, args, kwargs, einfo)


class PlainRecording(Task):
    """As code written for Celery has it: no async anywhere."""

    def before_start(self, task_id, args, kwargs):
        self.calls.append(("before_start", task_id, args, kwargs))
        super().before_start(task_id, args, kwargs)

    def on_success(self, retval, task_id, args, kwargs):
        self.calls.append(("on_success", retval, task_id, args, kwargs))
        super().on_success(retval, task_id, args, kwargs)

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        self.calls.append(("on_retry", exc, task_id, args, kwargs, einfo))
        super().on_retry(exc, task_id, args, kwargs, einfo)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        self.calls.append(("on_failure", exc, task_id, args, kwargs, einfo))
        super().on_failure(exc, task_id, args, kwargs, einfo)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        self.calls.append(("after_return", status, retval, task_id, args, kwargs, einfo))
        return super().after_return(status, retval, task_id, args, kwargs, einfo)


def names(task):
    return [call[0] for call in task.calls]


def made(queue, base, body, kind, **options):
    if kind == "plain":

        def function(x, y=0):
            return body(x)
    else:

        async def function(x, y=0):
            return body(x)

    task = queue.task(base=base, **options)(function)
    task.calls = []
    return task


BASES = pytest.mark.parametrize("base", [Recording, PlainRecording])
KINDS = pytest.mark.parametrize("kind", ["coroutine", "plain"])


@BASES
@KINDS
async def test_success(queue, base, kind):
    task = made(queue, base, lambda x: x + 1, kind)
    result = await task.delay(1, y=5)
    assert await soon(result.get()) == 2
    who = (result.id, [1], {"y": 5})
    assert task.calls == [
        ("before_start", *who),
        ("on_success", 2, *who),
        ("after_return", "SUCCESS", 2, *who, None),
    ]


@BASES
@KINDS
async def test_on_failure_is_called_once_after_the_last_retry(queue, base, kind):
    error = ConnectionError("no")

    def body(x):
        raise error

    task = made(queue, base, body, kind, autoretry_for=(ConnectionError,), max_retries=2, default_retry_delay=0.01)
    result = await task.delay(1)
    with pytest.raises(ConnectionError):
        await soon(result.get())
    attempt = ["before_start", "on_retry", "after_return"]
    assert names(task) == [*attempt, *attempt, "before_start", "on_failure", "after_return"]
    who = (result.id, [1], {})
    _, exc, *rest, einfo = task.calls[-2]
    assert exc is error
    assert tuple(rest) == who
    assert isinstance(einfo, ExceptionInfo)
    assert einfo.exception is error
    assert "ConnectionError: no" in str(einfo)
    assert [call[1] for call in task.calls if call[0] == "after_return"] == ["RETRY", "RETRY", "FAILURE"]


async def test_a_value_that_cannot_be_stored_is_a_failure_for_hooks_too(queue):
    task = made(queue, Recording, lambda x: object(), "coroutine")
    await soon((await task.delay(1)).get(propagate=False))
    assert names(task) == ["before_start", "on_failure", "after_return"]


async def test_an_ignored_attempt_calls_no_outcome_hook(queue):
    def body(x):
        raise Ignore

    task = made(queue, Recording, body, "coroutine")
    await task.delay(1)
    marker = made(queue, Recording, lambda x: x, "plain", name="marker")
    await soon((await marker.delay(1)).get())
    assert names(task) == ["before_start"]


@pytest.mark.parametrize("hook", ["before_start", "on_success", "on_retry", "on_failure", "after_return"])
@pytest.mark.parametrize("error", [RuntimeError("bug"), SystemExit(1), asyncio.CancelledError()], ids=repr)
@KINDS
async def test_a_hook_that_raises_changes_nothing(queue, caplog, hook, error, kind):
    def broken(self, *args):
        raise error

    base = type("Broken", (Task,), {hook: broken})

    def body(x):
        if x:
            raise ConnectionError

    task = made(queue, base, body, kind, autoretry_for=(ConnectionError,), max_retries=1, default_retry_delay=0.01)
    good, bad = await task.delay(0), await task.delay(1)
    assert await soon(good.get()) is None
    with pytest.raises(ConnectionError):
        await soon(bad.get())
    assert f"{hook} of" in caplog.text


async def test_hooks_of_plain_functions_run_in_threads_and_know_their_run(queue):
    seen = []

    class Where(Task):
        def on_success(self, retval, task_id, args, kwargs):
            seen.append((threading.current_thread() is threading.main_thread(), self.request.id))

    @queue.task(base=Where)
    def plain():
        pass

    @queue.task(base=Where)
    async def coroutine():
        pass

    results = [await plain.delay(), await coroutine.delay()]
    for result in results:
        await soon(result.get())
    assert sorted(seen) == sorted([(False, results[0].id), (True, results[1].id)])


async def test_exhausted_tasks_go_to_a_quarantine_queue(queue):
    """The dead-letter pattern of the retry guide."""
    arrived = asyncio.Queue()

    class DLQTask(Task):
        async def on_failure(self, exc, task_id, args, kwargs, einfo):
            await quarantine_task.apply_async(
                kwargs={
                    "original_task": self.name,
                    "args": args,
                    "kwargs": kwargs,
                    "error": repr(exc),
                    "traceback": str(einfo),
                },
                queue="dead_letter",
            )
            await super().on_failure(exc, task_id, args, kwargs, einfo)

    @queue.task(queue="dead_letter")
    async def quarantine_task(**failed):
        arrived.put_nowait(failed)

    @queue.task(base=DLQTask, autoretry_for=(ConnectionError,), max_retries=1, default_retry_delay=0.01)
    def sync_to_crm(record_id):
        raise ConnectionError(record_id)

    async with Worker(queue, queues=["dead_letter"], concurrency=1).running():
        await sync_to_crm.delay(42)
        failed = await soon(arrived.get())
    assert failed["original_task"] == sync_to_crm.name
    assert failed["args"] == [42]
    assert failed["error"] == "ConnectionError(42)"
    assert "Traceback" in failed["traceback"]
    assert arrived.empty()
