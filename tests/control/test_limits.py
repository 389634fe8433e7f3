"""Rates, and time limits that change while the worker runs."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from itertools import count

import anyio
import pytest
from control_lab import NODE

from aioretryq import ConfigError, SoftTimeLimitExceeded, Task, TaskQueue, TimeLimitExceeded, Worker
from aioretryq.calling import CallOptions
from aioretryq.rates import AHEAD, OFFERS, Bucket, parse_rate
from queues import memory_url, soon, until


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


class Backlog:
    """Messages of one task, in a broker that gives each to one of some workers the moment it is due."""

    def __init__(self, messages, *buckets, clock_ahead=0.0):
        self.buckets = list(buckets)
        self._now, self._count = 0.0, count()
        self.waiting = []
        for _ in range(messages):
            self.add(0.0, {})
        self.clock_ahead = clock_ahead
        self.asked = 0
        self.started = []
        self._turn = random.Random(1)

    def run(self, until):
        while self.waiting:
            due = self.waiting[0][0]
            if due - self.clock_ahead >= until:
                break
            marks = heapq.heappop(self.waiting)[2]
            self._now = max(self._now, due - self.clock_ahead)
            self.asked += 1
            place = self._turn.choice(self.buckets).ask(marks, self._now)
            if place is None:
                self.started.append(self._now)
            else:
                self.add(place.due, place.marks)
        return self

    def add(self, due, marks):
        heapq.heappush(self.waiting, (due, next(self._count), marks))

    def rate(self, since, until):
        return sum(since <= moment < until for moment in self.started) / (until - since)


def test_slots():
    lab = Backlog(30, Bucket(2.0, 1)).run(60)
    assert lab.started == pytest.approx([n / 2 for n in range(30)], abs=0.3)
    assert lab.asked < 300


def test_slots_reach_a_few_seconds_ahead():
    lab = Backlog(1000, Bucket(2.0, 1)).run(0.1)
    assert sum("bucket" in marks and marks["bucket"] == 1 for _, _, marks in lab.waiting) <= AHEAD * 2 + 1
    assert max(due for due, _, _ in lab.waiting) < 10


def test_slots_of_a_worker_that_is_gone_are_worth_nothing():
    lab = Backlog(30, Bucket(2.0, 1)).run(0.1)
    lab.buckets = [Bucket(2.0, 2)]
    for _ in range(30):
        lab.add(0.1, {})
    lab.run(20)
    assert max(lab.rate(n, n + 4) for n in range(16)) <= 2.5
    assert lab.rate(2, 18) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("rate", [0.2, 2.0, 50.0])
def test_another_worker_counts(rate):
    end, span = max(100 / rate, 24), 20 / rate
    lab = Backlog(int(3 * rate * end), Bucket(rate, 1)).run(end / 4)
    lab.buckets.append(Bucket(rate, 2))
    lab.run(end)
    assert lab.rate(0, end / 4) == pytest.approx(rate, rel=0.1)
    assert lab.rate(end / 4 + AHEAD, end) == pytest.approx(2 * rate, rel=0.25)
    assert max(lab.rate(n * span / 4, n * span / 4 + span) for n in range(16)) <= 2 * rate * 1.1 + 2 * rate / span


def test_another_rate_counts_within_seconds():
    lab = Backlog(400, Bucket(1.0, 1)).run(4)
    lab.buckets = [Bucket(20.0, 2)]
    lab.run(30)
    assert lab.rate(10, 20) == pytest.approx(20, rel=0.15)


def test_a_hundred_thousand_do_not_keep_a_worker_busy():
    bucket = Bucket(2.0, 1)
    dues = [place.due for _ in range(100_000) if (place := bucket.ask({}, 0.0))]
    assert max(sum(n <= due < n + 1 for due in dues) for n in (3, 10, 100, 400)) <= OFFERS + 3


def test_few_of_a_low_rate_are_hardly_ever_looked_at():
    lab = Backlog(3, Bucket(1 / 60, 1)).run(200)
    assert lab.started == pytest.approx([0, 60, 120], abs=1)
    assert lab.asked < 20


@pytest.mark.parametrize("rate", [1 / 600, 1 / 3, 10.0])
@pytest.mark.parametrize("late", [0.1, 3.0, 40.0])
def test_a_busy_worker_that_comes_late_starts_them_all_the_same(rate, late):
    bucket, now, marks, started = Bucket(rate, 1), 0.0, [{} for _ in range(20)], 0
    for _ in range(2000):
        now += late
        places = [bucket.ask(each, now) for each in marks]
        started += places.count(None)
        marks = [place.marks if place else {} for place in places]
    assert started >= 0.8 * min(rate, 1 / late) * 2000 * late


def test_a_broker_whose_clock_is_ahead():
    lab = Backlog(60, Bucket(2.0, 1), clock_ahead=20.0)
    lab.run(40)
    assert lab.started[-1] == pytest.approx(29.5, abs=1)
    assert lab.asked < 1000


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


async def test_two_workers_each_with_its_own_rate(lab):
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


async def test_scaling_out_and_raising_the_rate_have_an_effect_on_what_waits(memory_lab):
    """The first worker alone would take 60 seconds."""
    started = []

    def define(queue):
        @queue.task(name="lab.stamp", rate_limit="1/s")
        async def stamp():
            started.append(time.time())

    await memory_lab.worker(define=define)
    for _ in range(60):
        await memory_lab.client.send_task("lab.stamp", ignore_result=True)
    await until(lambda: len(started) >= 2)
    await memory_lab.worker("w2@lab", define=define)
    await memory_lab.client.control.rate_limit("lab.stamp", "50/s", timeout=15)
    await until(lambda: len(started) == 60)


async def test_what_a_worker_that_stopped_has_left_does_not_exceed_the_rate(memory_lab):
    started = []

    def define(queue):
        @queue.task(name="lab.stamp", rate_limit="10/s")
        async def stamp():
            started.append(time.time())

    async def send():
        for _ in range(20):
            await memory_lab.client.send_task("lab.stamp", ignore_result=True)

    first = await memory_lab.worker(define=define)
    await send()
    await until(lambda: len(started) >= 2)
    first.stop()
    before = len(started)
    await memory_lab.worker("w2@lab", define=define)
    await send()
    await until(lambda: len(started) >= before + 18)
    times = started[before : before + 18]
    assert times[-1] - times[0] >= 17 * 0.1 - 0.1


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


def test_a_soft_limit_after_the_hard_one_is_refused(queue):
    class Strict(Task):
        time_limit = 10

    def work(): ...

    said = "soft_time_limit 20(.0)? is longer than time_limit 10"
    for options in ({"time_limit": 10, "soft_time_limit": 20}, {"base": Strict, "soft_time_limit": 20}):
        with pytest.raises(ConfigError, match=f"Task 'w': {said}"):
            queue.task(name="w", **options)(work)
    with pytest.raises(ConfigError, match=said):
        CallOptions.of({"time_limit": 10, "soft_time_limit": 20}, "w")
    with pytest.raises(ConfigError, match="time_limit is not a time"):
        CallOptions.of({"time_limit": "10"}, "w")
    CallOptions.of({"time_limit": 0, "soft_time_limit": 20}, "w")
    queue.conf.task_soft_time_limit = 60
    assert queue.task(name="short", time_limit=10)(work).soft_time_limit == 60


async def test_nor_in_a_call_or_a_retry(queue):
    @queue.task(bind=True)
    async def work(self):
        self.retry(soft_time_limit=20, time_limit=10)

    async with queue:
        for call in (work.apply_async, lambda **options: queue.send_task("work", **options)):
            with pytest.raises(ConfigError, match="soft_time_limit 20 is longer than time_limit 10"):
                await call(soft_time_limit=20, time_limit=10)
    status, error = await finished(work)
    assert (status, type(error)) == ("FAILURE", ConfigError)


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
