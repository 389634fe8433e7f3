"""Running tasks in place: apply() and task_always_eager."""

from __future__ import annotations

import asyncio

import pytest

from aioretryq import (
    EagerResult,
    EncodeError,
    Ignore,
    MaxRetriesExceededError,
    Reject,
    Retry,
    Task,
    TaskQueue,
    TimeLimitExceeded,
)
from queues import memory_url, soon


@pytest.fixture
def queue():
    return TaskQueue(memory_url())


@pytest.fixture
def eager():
    return TaskQueue(memory_url(), task_always_eager=True)


async def test_the_value(queue):
    @queue.task
    async def add(x, y):
        return x + y

    @queue.task
    def double(x):
        return 2 * x

    result = await add.apply((1, 2))
    assert isinstance(result, EagerResult)
    assert await result.get() == 3
    assert await result == 3
    assert await result.status() == "SUCCESS"
    assert await result.ready()
    assert await result.successful()
    assert await (await double.apply(args=[4])).get() == 8
    assert await (await double.apply(kwargs={"x": 5})).get() == 10
    assert [update.status async for update in result.updates()] == ["SUCCESS"]


async def test_failure_is_raised_by_get(queue):
    @queue.task
    async def fails():
        raise ValueError("no")

    result = await fails.apply()
    assert await result.status() == "FAILURE"
    assert await result.failed()
    with pytest.raises(ValueError, match="no"):
        await result.get()
    assert isinstance(await result.get(propagate=False), ValueError)
    assert isinstance(await result.result(), ValueError)
    assert "fails" in await result.traceback()
    with pytest.raises(ValueError, match="no"):
        await fails.apply(throw=True)


async def test_exhausted_task_runs_through_its_retries_and_is_quarantined(eager):
    dead_letters = []

    class DLQTask(Task):
        async def on_failure(self, exc, task_id, args, kwargs, einfo):
            await quarantine.apply_async(
                kwargs={"original_task": self.name, "args": args, "error": repr(exc), "traceback": str(einfo)},
                queue="dead_letter",
            )
            await super().on_failure(exc, task_id, args, kwargs, einfo)

    @eager.task(queue="dead_letter")
    async def quarantine(**failed):
        dead_letters.append(failed)

    attempts = []

    @eager.task(base=DLQTask, bind=True, autoretry_for=(ConnectionError,), max_retries=4, retry_backoff=600)
    async def sync_to_crm(self, record_id):
        attempts.append(self.request.retries)
        raise ConnectionError(record_id)

    result = await soon(sync_to_crm.apply(args=[42]))
    assert attempts == [0, 1, 2, 3, 4]
    assert await result.status() == "FAILURE"
    assert await result.retries() == 4
    assert len(dead_letters) == 1
    assert dead_letters[0]["original_task"] == sync_to_crm.name
    assert dead_letters[0]["args"] == [42]
    assert dead_letters[0]["error"] == "ConnectionError(42)"
    assert "ConnectionError: 42" in dead_letters[0]["traceback"]


async def test_waits_are_skipped_or_seen_by_the_given_sleep(queue):
    slept = []

    async def sleep(delay):
        slept.append(delay)

    @queue.task(autoretry_for=(OSError,), max_retries=3, retry_backoff=100, retry_jitter=False)
    async def fails():
        raise OSError("down")

    await soon(fails.apply())
    await soon(fails.apply(sleep=sleep))
    assert slept == pytest.approx([100, 200, 400], abs=5)


async def test_retry_succeeds_with_other_arguments(queue):
    @queue.task(bind=True)
    async def work(self, n):
        if self.request.retries == 0:
            raise self.retry(args=(n + 1,), countdown=1000)
        return n, self.request.retries

    assert await soon((await work.apply((1,))).get()) == [2, 1]


async def test_exhausted_retry_without_an_exception(queue):
    @queue.task(bind=True, max_retries=2)
    async def work(self):
        self.retry()

    result = await work.apply()
    with pytest.raises(MaxRetriesExceededError, match="work"):
        await result.get()


async def test_raised_retry_counts_too(queue):
    attempts = []

    @queue.task(max_retries=2)
    async def work():
        attempts.append(1)
        raise Retry(exc=KeyError("k"))

    with pytest.raises(KeyError):
        await (await work.apply()).get()
    assert len(attempts) == 3


async def test_the_request(queue):
    @queue.task(bind=True)
    async def work(self, x):
        request = self.request
        return [request.id, request.is_eager, request.called_directly, request.headers, request.args, self.name]

    result = await work.apply((1,), task_id="mine", headers={"tenant": "a"})
    assert await result.get() == ["mine", True, False, {"tenant": "a"}, [1], work.name]


async def test_arguments_and_value_pass_the_serializer(queue):
    @queue.task
    async def kind(x):
        return type(x).__name__, (1, 2)

    assert await (await kind.apply(((1, 2),))).get() == ["list", [1, 2]]
    with pytest.raises(EncodeError):
        await kind.apply((object(),))


async def test_a_value_that_cannot_be_stored_is_a_failure(queue):
    @queue.task
    async def work():
        return object()

    with pytest.raises(EncodeError):
        await (await work.apply()).get()


async def test_ignore_reject_and_time_limit(queue):
    @queue.task
    async def ignored():
        raise Ignore

    @queue.task
    async def rejected():
        raise Reject("bad")

    @queue.task(time_limit=0.05)
    async def endless():
        await asyncio.Event().wait()

    assert await (await ignored.apply()).get() is None
    with pytest.raises(Reject):
        await (await rejected.apply()).get()
    with pytest.raises(TimeLimitExceeded):
        await soon((await endless.apply()).get())


async def test_progress_needs_no_broker(queue):
    @queue.task(bind=True)
    async def work(self):
        await self.update_state(state="PROGRESS", meta={"done": 1})
        return "done"

    assert await (await work.apply()).get() == "done"


async def test_hooks_run_and_change_nothing(queue):
    seen = []

    class Hooked(Task):
        def before_start(self, task_id, args, kwargs):
            seen.append("before_start")

        def on_retry(self, exc, task_id, args, kwargs, einfo):
            seen.append("on_retry")
            raise RuntimeError("a hook's bug")

        def on_success(self, retval, task_id, args, kwargs):
            seen.append(("on_success", retval))
            super().on_success(retval, task_id, args, kwargs)

        def after_return(self, status, retval, task_id, args, kwargs, einfo):
            seen.append(("after_return", status))

    @queue.task(base=Hooked, bind=True)
    async def work(self):
        if self.request.retries == 0:
            self.retry()
        return 5

    assert await (await work.apply()).get() == 5
    assert seen == [
        "before_start", "on_retry", ("after_return", "RETRY"),
        "before_start", ("on_success", 5), ("after_return", "SUCCESS"),
    ]  # fmt: skip


async def test_always_eager_needs_no_open_queue(eager):
    @eager.task
    async def add(x, y):
        return x + y

    @eager.task
    async def fails():
        raise ValueError("no")

    for result in (
        await add.delay(1, 2),
        await add.apply_async((1, 2), countdown=1000, queue="q"),
        await eager.send_task(add.name, (1, 2), task_id="x"),
    ):
        assert await result.get(timeout=1) == 3
    with pytest.raises(ValueError, match="no"):
        await (await fails.delay()).get()
    eager.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="no"):
        await fails.delay()


async def test_tasks_sent_by_an_eager_task_know_their_parent(eager):
    @eager.task(bind=True)
    async def child(self):
        return [self.request.parent_id, self.request.root_id]

    @eager.task(bind=True)
    async def parent(self):
        return [self.request.id, await (await child.delay()).get()]

    own, (parent_id, root_id) = await (await parent.delay()).get()
    assert own == parent_id == root_id


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"accept_content": ["json", "pickle"], "result_serializer": "pickle"}, {"serializer": "pickle"}),
        ({"accept_content": ["json", "yaml"], "result_serializer": "yaml", "task_serializer": "yaml"}, {}),
    ],
)
async def test_arguments_and_values_pass_the_serializer_of_the_task(settings, options):
    queue = TaskQueue("memory://", **settings)

    @queue.task(**options)
    async def work(value):
        return value | {3}

    assert await (await work.apply([{1, 2}])).get() == {1, 2, 3}
