"""The awaitable retry loop."""

from __future__ import annotations

import asyncio
import random

import anyio
import pytest

from aioretryq import IntervalPolicy, RetryPolicy, retrying


class Flaky:
    """Fails a given number of times, then answers."""

    def __init__(self, failures, error=None):
        self.failures = failures
        self.error = error or OSError("no")
        self.calls = 0

    async def __call__(self):
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "done"


class Clock:
    def __init__(self):
        self.slept = []

    async def sleep(self, delay):
        self.slept.append(delay)


@pytest.fixture
def clock():
    return Clock()


EVERY_SECOND = IntervalPolicy(max_retries=3, interval_start=1, interval_step=1, interval_max=10)


async def use(operation, policy, clock, **options):
    async for attempt in retrying(policy, on=(OSError,), sleep=clock.sleep, **options):
        with attempt:
            return await operation()
    raise AssertionError("left without an answer")


async def test_success_at_once_waits_for_nothing(clock):
    operation = Flaky(0)
    assert await use(operation, EVERY_SECOND, clock) == "done"
    assert (operation.calls, clock.slept) == (1, [])


async def test_waits_follow_the_policy(clock):
    operation = Flaky(3)
    assert await use(operation, EVERY_SECOND, clock) == "done"
    assert (operation.calls, clock.slept) == (4, [1, 2, 3])


async def test_the_last_error_leaves_as_it_is(clock):
    error = ConnectionError("still no")
    operation = Flaky(99, error)
    with pytest.raises(ConnectionError) as raised:
        await use(operation, EVERY_SECOND, clock)
    assert raised.value is error
    assert (operation.calls, clock.slept) == (4, [1, 2, 3])


@pytest.mark.parametrize("count", [0, 1, 5])
async def test_max_retries_counts_what_comes_after_the_first_attempt(clock, count):
    operation = Flaky(99)
    with pytest.raises(OSError, match="no"):
        await use(operation, IntervalPolicy(max_retries=count), clock)
    assert operation.calls == count + 1


async def test_none_is_for_ever(clock):
    operation = Flaky(2000)
    assert await use(operation, RetryPolicy(max_retries=None, backoff=1), clock) == "done"
    assert len(clock.slept) == 2000
    assert max(clock.slept) <= 600


async def test_other_errors_pass(clock):
    operation = Flaky(1, ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await use(operation, EVERY_SECOND, clock)
    assert operation.calls == 1


async def test_an_error_after_retries_that_is_not_wanted_passes(clock):
    seen = []

    async def operation():
        seen.append(1)
        raise ValueError("third") if len(seen) == 3 else OSError

    with pytest.raises(ValueError, match="third"):
        await use(operation, EVERY_SECOND, clock)
    assert len(seen) == 3


async def test_the_loop_ends_after_a_block_that_does_not_raise(clock):
    operation = Flaky(2)
    async for attempt in retrying(EVERY_SECOND, on=(OSError,), sleep=clock.sleep):
        with attempt:
            await operation()
    assert operation.calls == 3


async def test_the_same_object_may_be_iterated_again(clock):
    loop = retrying(EVERY_SECOND, on=(OSError,), sleep=clock.sleep)
    for _ in range(2):
        operation = Flaky(1)
        async for attempt in loop:
            with attempt:
                await operation()
        assert operation.calls == 2


async def test_jitter_comes_from_the_given_source(clock):
    policy = RetryPolicy(max_retries=3, backoff=8)
    await use(Flaky(3), policy, clock, random=random.Random(1))
    expected = random.Random(1)
    assert clock.slept == [expected.uniform(0, top) for top in (8, 16, 32)]


async def test_on_retry_sees_each_error_before_its_wait(clock):
    seen = []

    def note(error, retries, delay):
        seen.append((str(error), retries, delay, len(clock.slept)))

    await use(Flaky(2), EVERY_SECOND, clock, on_retry=note)
    assert seen == [("no", 0, 1, 0), ("no", 1, 2, 1)]


async def test_reset_counts_afresh(clock):
    async def fail_and_reset_once():
        failures = 0
        async for attempt in retrying(EVERY_SECOND, on=(OSError,), sleep=clock.sleep):
            with attempt:
                failures += 1
                if failures == 3:
                    attempt.reset()
                raise OSError("down")

    with pytest.raises(OSError, match="down"):
        await fail_and_reset_once()
    assert clock.slept == [1, 2, 1, 2, 3]


@pytest.mark.parametrize("on", [(Exception,), (BaseException,), (asyncio.CancelledError,)])
async def test_cancellation_is_never_swallowed(on):
    inside = asyncio.Event()
    passes = 0

    async def body():
        nonlocal passes
        async for attempt in retrying(RetryPolicy(max_retries=None, delay=0), on=on):
            with attempt:
                passes += 1
                inside.set()
                await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert passes == 1


async def test_cancellation_during_the_wait_ends_the_loop():
    waiting = asyncio.Event()

    async def sleep(delay):
        waiting.set()
        await asyncio.sleep(60)

    operation = Flaky(99)

    async def body():
        async for attempt in retrying(EVERY_SECOND, on=(OSError,), sleep=sleep):
            with attempt:
                await operation()

    task = asyncio.create_task(body())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert operation.calls == 1


async def test_works_inside_a_deadline():
    operation = Flaky(99)
    with anyio.move_on_after(0.05) as scope:
        async for attempt in retrying(RetryPolicy(max_retries=None, delay=0.001), on=(OSError,)):
            with attempt:
                await operation()
    assert scope.cancelled_caught
    assert operation.calls > 1


def test_reading_example_of_the_documentation():
    async def fetch():
        return 42

    async def user_code():
        async for attempt in retrying(RetryPolicy(max_retries=5, backoff=0.5), on=(OSError,)):
            with attempt:
                return await fetch()
        raise AssertionError

    assert asyncio.run(user_code()) == 42
