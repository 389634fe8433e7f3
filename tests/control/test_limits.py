"""Rates, and time limits that change while the worker runs."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest
from control_lab import NODE

from aioretryq import ConfigError, SoftTimeLimitExceeded, TaskQueue, TimeLimitExceeded, Worker
from aioretryq.rates import Slots, parse_rate
from queues import memory_url, soon


@pytest.mark.parametrize(
    ("written", "per_second"),
    [
        ("10/s", 10),
        ("120/m", 2),
        ("3600/h", 1),
        ("5", 5),
        (7, 7),
        (0.5, 0.5),
        (None, None),
        (0, None),
        ("0", None),
        ("", None),
    ],
)
def test_rates(written, per_second):
    assert parse_rate(written) == per_second


@pytest.mark.parametrize("written", ["abc", "10/d", "10/", "/s", "-1/s", "inf", "nan/s", [], {}, True, object])
def test_what_is_no_rate(written):
    with pytest.raises(ValueError, match=r"."):
        parse_rate(written)
    queue = TaskQueue("memory://")
    with pytest.raises(ConfigError, match="rate_limit is a rate like"):

        @queue.task(rate_limit=written)
        def work(): ...


def test_slots():
    slots = Slots()
    assert [slots.take("a", 2.0, now=10.0) for _ in range(3)] == [10.0, 10.5, 11.0]
    assert slots.take("b", 2.0, now=10.0) == 10.0
    assert slots.take("a", 2.0, now=20.0) == 20.0
    slots.forget("a")
    assert slots.take("a", 2.0, now=20.0) == 20.0


async def starts(results):
    return sorted([await soon(result.get()) for result in results])


def stamping(queue, **options):
    @queue.task(name="lab.stamp", **options)
    async def stamp():
        return time.time()

    return stamp


async def test_tasks_over_their_rate_wait_in_the_broker(lab):
    await lab.worker(define=lambda queue: stamping(queue, rate_limit="20/s"), concurrency=1)
    results = [await lab.client.send_task("lab.stamp") for _ in range(6)]
    times = await starts(results)
    assert times[-1] - times[0] >= 5 * 0.05 - 0.03
    assert (await lab.client.control.inspect(timeout=15).stats())[NODE]["total"] == {"lab.stamp": 6}


async def test_they_hold_no_place(memory_lab):
    """One that waits for an hour does not keep others from running, although one at a time may run."""
    await memory_lab.worker(define=both, concurrency=1)
    slow = [await memory_lab.client.send_task("lab.stamp") for _ in range(5)]
    assert await soon((await memory_lab.client.send_task("lab.free")).get()) == "free"
    async with asyncio.timeout(20):
        while len(waiting := (await memory_lab.client.control.inspect().scheduled())[NODE]) < 4:
            await asyncio.sleep(0.001)
    assert {each["request"]["name"] for each in waiting} == {"lab.stamp"}
    for each in slow:
        await each.revoke()


def both(queue):
    stamping(queue, rate_limit="1/h")

    @queue.task(name="lab.free")
    async def free():
        return "free"


async def test_a_slot_is_kept_by_whichever_worker_gets_the_message(lab):
    """Two workers, each with its own rate: none of the messages has to ask twice."""
    for name in (NODE, "w2@lab"):
        await lab.worker(name, define=lambda queue: stamping(queue, rate_limit="10/s"))
    results = [await lab.client.send_task("lab.stamp") for _ in range(8)]
    times = await starts(results)
    assert times[-1] - times[0] < 3


async def test_a_rate_changes_while_the_worker_runs(memory_lab):
    await memory_lab.worker(define=stamping)
    control = memory_lab.client.control
    replies = await control.rate_limit("lab.stamp", "20/s", timeout=15)
    assert replies == {NODE: {"ok": "new rate limit set successfully"}}
    assert (await control.inspect().registered())[NODE] == ["lab.stamp [rate_limit=20/s]"]
    times = await starts([await memory_lab.client.send_task("lab.stamp") for _ in range(4)])
    assert times[-1] - times[0] >= 3 * 0.05 - 0.03
    await control.rate_limit("lab.stamp", 0, timeout=15)
    await starts([await memory_lab.client.send_task("lab.stamp") for _ in range(100)])


@pytest.mark.parametrize("disabled", [False, True])
async def test_settings(memory_lab, disabled):
    conf = {"task_default_rate_limit": "1/h", "worker_disable_rate_limits": disabled}
    await memory_lab.worker(define=stamping, conf=conf)
    results = [await memory_lab.client.send_task("lab.stamp") for _ in range(2)]
    await soon(results[0].get())
    if disabled:
        await soon(results[1].get())
    else:
        async with asyncio.timeout(20):
            while not (await memory_lab.client.control.inspect().scheduled())[NODE]:
                await asyncio.sleep(0.001)


async def test_a_wrong_default_stops_the_worker_at_once():
    queue = TaskQueue(memory_url(), task_default_rate_limit="often")
    with pytest.raises(ConfigError, match="task_default_rate_limit"):
        await Worker(queue).run()


# -- time limits


async def test_time_limits_change_while_the_worker_runs(memory_lab):
    await memory_lab.worker()
    client = memory_lab.client
    assert (await client.control.time_limit("lab.sleep", soft=0.05, hard=20, timeout=15))[NODE] == {
        "ok": "time limits set successfully"
    }
    with pytest.raises(SoftTimeLimitExceeded):
        await soon((await client.send_task("lab.sleep", [60])).get())
    await client.control.time_limit("lab.sleep", hard=0.05, timeout=15)
    with pytest.raises(TimeLimitExceeded):
        await soon((await client.send_task("lab.sleep", [60], time_limit=50)).get())
    await client.control.time_limit("lab.sleep", timeout=15)
    assert await soon((await client.send_task("lab.sleep", [0.1], time_limit=0.01)).get()) == "slept"


@pytest.fixture
def queue():
    return TaskQueue("memory://")


async def finished(task, *args, **options):
    result = await task.apply(args, **options)
    return await result.status(), await result.result()


class TestSoftTimeLimit:
    async def test_a_task_that_cleans_up_in_time(self, queue):
        @queue.task(soft_time_limit=0.02)
        async def work():
            try:
                await anyio.sleep(60)
            except SoftTimeLimitExceeded:
                await anyio.sleep(0.01)
                return "cleaned up"

        assert await finished(work) == ("SUCCESS", "cleaned up")

    async def test_a_task_that_does_not_is_failed(self, queue):
        @queue.task(soft_time_limit=0.02)
        async def work():
            await anyio.sleep(60)

        status, error = await finished(work)
        assert (status, type(error), error.args) == ("FAILURE", SoftTimeLimitExceeded, (0.02,))
        assert not isinstance(error, asyncio.CancelledError)

    async def test_the_hard_limit_ends_what_goes_on(self, queue):
        @queue.task(soft_time_limit=0.02, time_limit=0.06)
        async def work():
            try:
                await anyio.sleep(60)
            except SoftTimeLimitExceeded:
                await anyio.sleep(60)

        status, error = await finished(work)
        assert (status, type(error)) == ("FAILURE", TimeLimitExceeded)

    @pytest.mark.parametrize("kind", ["asyncio", "anyio"])
    async def test_task_groups_end_their_tasks_first(self, queue, kind):
        ended = []

        async def child():
            try:
                await anyio.sleep(60)
            finally:
                ended.append(1)

        @queue.task(soft_time_limit=0.02)
        async def waits_for_its_tasks():
            try:
                if kind == "anyio":
                    async with anyio.create_task_group() as group:
                        group.start_soon(child)
                else:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(child())
            except SoftTimeLimitExceeded:
                return len(ended)

        @queue.task(soft_time_limit=0.02)
        async def works_beside_them():
            async with anyio.create_task_group() if kind == "anyio" else asyncio.TaskGroup() as group:
                (group.start_soon(child) if kind == "anyio" else group.create_task(child()))
                await anyio.sleep(60)

        assert await finished(waits_for_its_tasks) == ("SUCCESS", 1)
        status, error = await finished(works_beside_them)
        assert (status, type(error), len(ended)) == ("FAILURE", SoftTimeLimitExceeded, 2)

    async def test_within_other_deadlines(self, queue):
        @queue.task(soft_time_limit=0.02)
        async def work():
            try:
                async with asyncio.timeout(60):
                    with anyio.move_on_after(60):
                        await asyncio.gather(anyio.sleep(60), anyio.sleep(60))
            except SoftTimeLimitExceeded:
                with anyio.move_on_after(0.01):
                    await anyio.sleep(60)
                return "still works"

        assert await finished(work) == ("SUCCESS", "still works")

    async def test_it_may_be_retried_for_it(self, queue):
        @queue.task(soft_time_limit=0.01, autoretry_for=(SoftTimeLimitExceeded,), max_retries=2)
        async def work():
            if work.request.retries < 2:
                await anyio.sleep(60)
            return work.request.retries

        assert await finished(work) == ("SUCCESS", 2)

    async def test_a_setting_and_an_option_of_the_call(self, queue):
        @queue.task
        async def work():
            await anyio.sleep(0.2)

        queue.conf.task_soft_time_limit = 0.01
        assert (await finished(work))[0] == "FAILURE"
        queue.conf.task_soft_time_limit = 60
        assert (await finished(work))[0] == "SUCCESS"
        async with queue, Worker(queue).running():
            with pytest.raises(SoftTimeLimitExceeded):
                await soon((await work.apply_async(soft_time_limit=0.01)).get())

    async def test_a_worker_that_stops_at_that_moment_wins(self, queue):
        began = asyncio.Event()

        @queue.task(soft_time_limit=0.01)
        async def work():
            began.set()
            time.sleep(0.05)  # past its limit when it is cancelled
            await anyio.sleep(60)

        async with queue:
            worker = Worker(queue, grace=0)
            async with worker.running():
                await work.delay()
                await soon(began.wait())
                worker.stop(now=True)
            assert await queue.broker.depth(["celery"]) in ({"celery": 1}, {"celery": 0})
            await queue.broker.purge("celery")
