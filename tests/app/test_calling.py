"""Calls: directly, with wrong arguments, with wrong options, on a closed queue."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from aioretryq import (
    ConfigError,
    EncodeError,
    NotOpenError,
    PayloadTooLarge,
    TaskQueue,
    UnknownSettingError,
    Worker,
    current_task,
)
from aioretryq.calling import CallKeywords, CallOptions
from queues import memory_url, soon


@pytest.fixture
async def queue():
    async with TaskQueue(memory_url()) as queue:
        yield queue


@pytest.fixture
def add(queue):
    @queue.task
    async def add(x, y=1, *, z=0):
        return x + y + z

    return add


async def test_calling_a_task_is_calling_its_function(queue, add):
    @queue.task
    def double(x):
        return 2 * x

    @queue.task(bind=True)
    async def bound(self, x):
        return self.name, self.request.called_directly, x

    assert await add(1, 2, z=3) == 6
    assert double(4) == 8
    assert await bound(5) == (bound.name, True, 5)
    assert await queue.broker.depth(["celery"]) == {"celery": 0}


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"w": 1}), ((1,), {"x": 1})], ids=str)
async def test_wrong_arguments_are_a_type_error_that_names_the_task(queue, add, args, kwargs):
    for call in (add.delay(*args, **kwargs), add.apply_async(args, kwargs), add.apply(args, kwargs)):
        with pytest.raises(TypeError, match=r"test_calling\.add"):
            await call
    assert await queue.broker.depth(["celery"]) == {"celery": 0}


async def test_bound_tasks_do_not_count_self(queue):
    @queue.task(bind=True)
    async def bound(self, x):
        return x

    await bound.delay(1)
    with pytest.raises(TypeError, match="bound"):
        await bound.delay(1, 2)


async def test_unknown_call_options_suggest_the_nearest(add):
    with pytest.raises(UnknownSettingError, match="countdown"):
        await add.apply_async((1,), count_down=3)
    with pytest.raises(UnknownSettingError, match="throw"):
        await add.apply((1,), trow=True)


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 1, "eta": datetime(2030, 1, 1, tzinfo=UTC)},
        {"priority": 10},
        {"priority": -1},
        {"serializer": "xml"},
        {"compression": "rar"},
        {"retry_policy": {"max_retry": 3}},
        {"retry_policy": {"interval_start": -1}},
    ],
    ids=str,
)
async def test_wrong_call_options_are_config_errors(queue, add, options):
    with pytest.raises(ConfigError):
        await add.apply_async((1,), **options)
    assert await queue.broker.depth(["celery"]) == {"celery": 0}


def test_a_type_checker_knows_every_option_of_a_call():
    assert set(CallKeywords.__annotations__) == set(CallOptions.__struct_fields__)


BROKEN = [
    {"a": 1},
    {"task": None},
    {"task": "t", "args": 5},
    {"task": "t", "options": {"priority": 99}},
    {"task": "t", "options": {"link": [{"a": 1}]}},
    {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": [{"a": 1}]}},
    {"task": "celery.chord", "subtask_type": "chord", "kwargs": {"header": []}},
    "t",
    5,
]


@pytest.mark.parametrize("option", ["link", "link_error", "chain", "chord"])
@pytest.mark.parametrize("broken", BROKEN, ids=str)
async def test_what_could_not_follow_is_an_error_before_anything_is_sent(queue, add, option, broken):
    given = broken if option == "chord" else [{"task": "fine"}, broken]
    for call in (
        add.apply_async((1,), **{option: given}),
        add.apply_async((1,), **{option: broken}),
        queue.send_task("t", **{option: broken}),
    ):
        with pytest.raises(ConfigError, match=rf"{option}: .* Nothing was sent"):
            await call
    with pytest.raises(ConfigError):
        add.signature((1,), **{option: broken})
    assert await queue.broker.depth(["celery"]) == {"celery": 0}


async def test_a_chord_has_one_body(add):
    with pytest.raises(ConfigError, match="chord"):
        await add.apply_async((1,), chord=[{"task": "t"}])


async def test_a_link_that_holds_itself(add):
    round_and_round = {"task": "t", "options": {}}
    round_and_round["options"]["link"] = round_and_round
    with pytest.raises(ConfigError, match="link"):
        await add.apply_async((1,), link=round_and_round)


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 1e20},
        {"countdown": float("nan")},
        {"countdown": "soon"},
        {"eta": "2030-01-01"},
        {"expires": 1e20},
    ],
    ids=str,
)
async def test_impossible_times_are_errors_of_the_call(queue, add, options):
    with pytest.raises((ConfigError, EncodeError)):
        await add.apply_async((1,), **options)
    assert await queue.broker.depth(["celery"]) == {"celery": 0}


async def test_arguments_that_cannot_be_serialised(queue, add):
    with pytest.raises(EncodeError):
        await add.delay(object())
    assert await queue.broker.depth(["celery"]) == {"celery": 0}


async def test_arguments_that_are_too_large(queue, add):
    queue.conf.max_payload_bytes = 2000
    with pytest.raises(PayloadTooLarge, match="max_payload_bytes"):
        await add.delay("x" * 3000)
    await add.delay(1)
    assert await queue.broker.depth(["celery"]) == {"celery": 1}


async def test_a_queue_that_is_not_open_says_what_to_do():
    queue = TaskQueue("memory://")

    @queue.task
    async def work():
        pass

    async def use():
        for operation in (
            work.delay,
            queue.AsyncResult("x").get,
            queue.AsyncResult("x").status,
            queue.AsyncResult("x").revoke,
        ):
            with pytest.raises(NotOpenError, match="async with queue"):
                await operation()

    await use()
    async with queue:
        await work.delay()
    await use()


async def test_opening_may_be_nested_and_the_outermost_exit_closes():
    queue = TaskQueue(memory_url())

    @queue.task
    async def work():
        pass

    async with queue:
        async with queue:
            await work.delay()
        await work.delay()
        assert await queue.broker.depth(["celery"]) == {"celery": 2}
    with pytest.raises(NotOpenError):
        await work.delay()


async def test_opening_and_closing_in_different_tasks():
    queue = TaskQueue(memory_url())
    await asyncio.create_task(queue.__aenter__())
    await queue.send_task("x")
    await asyncio.create_task(queue.__aexit__(None, None, None))
    with pytest.raises(NotOpenError):
        await queue.send_task("x")


async def test_concurrent_opening_leaves_one_open_queue():
    queue = TaskQueue(memory_url())

    async def use():
        async with queue:
            await queue.send_task("x")
            await asyncio.sleep(0)
            await queue.send_task("x")

    await asyncio.gather(*[use() for _ in range(20)])


async def test_a_wrong_address_is_an_error_when_opening():
    for url in ("nonsense", "amqp://localhost", "redis://localhost:notaport/0"):
        with pytest.raises(ConfigError):
            async with TaskQueue(url):
                pass


async def test_current_task(queue):
    seen = []

    @queue.task
    async def outer():
        seen.append((current_task(), current_task().request.id))

    with pytest.raises(RuntimeError, match="outside"):
        current_task()
    async with Worker(queue).running():
        result = await outer.delay()
        await soon(result.get())
    assert seen == [(outer, result.id)]
    with pytest.raises(RuntimeError):
        current_task()
