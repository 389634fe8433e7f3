"""Calls without options take a short way: what they send is what the long way sends, whatever was set meanwhile."""

from __future__ import annotations

import json

import pytest

from aioretryq import Broadcast, EncodeError, PayloadTooLarge, Queue, Task, TaskQueue
from aioretryq.context import Request, Run, current_run
from aioretryq.plain_calls import PlainCalls
from queues import memory_url

LONG_WAY = {"retry": True}
"""An option that changes nothing."""


@pytest.fixture
async def queue():
    async with TaskQueue(memory_url(), accept_content=("json", "pickle")) as queue:
        yield queue


@pytest.fixture
def add(queue):
    @queue.task(name="app.add")
    async def add(x, y=1):
        return x + y

    return add


def content(delivery):
    """All that is not another one in each message."""
    message = json.loads(delivery.body)
    headers, properties = message["headers"], message["properties"]
    task_id = headers.pop("id")
    assert task_id == properties.pop("correlation_id")
    headers["root_id"] = "own" if headers["root_id"] == task_id else headers["root_id"]
    assert properties.pop("delivery_tag")
    return message, delivery.priority, delivery.queue


async def both(queue, task, *args, queues=("celery", "other", "mail"), **kwargs):
    short = await task.delay(*args, **kwargs)
    long = await task.apply_async(args, kwargs, **LONG_WAY)
    assert short.ignored == long.ignored
    claim = await queue.broker.claim(queues, limit=10)
    first, second = (content(delivery) for delivery in claim.deliveries)
    assert first == second
    return first


SETTINGS = [
    {"task_default_queue": "other"},
    {"task_default_priority": 7},
    {"task_serializer": "pickle"},
    {"task_compression": "gzip"},
    {"task_ignore_result": True},
    {"task_time_limit": 9.0, "task_soft_time_limit": 3.0},
    {"task_queues": [Queue("celery"), Queue("other")], "task_default_queue": "other"},
    {"task_routes": {"app.*": "other"}},
    {"task_routes": [("app.add", {"queue": "other", "priority": 3})]},
    {"task_routes": lambda name, args, kwargs, options, task=None: "mail" if args[0] else "other"},
    {"task_create_missing_queues": False, "task_queues": [Queue("celery")]},
    {"task_send_sent_event": True},
]
OPTIONS = [
    {"queue": "other"},
    {"priority": 5},
    {"serializer": "pickle"},
    {"compression": "zlib"},
    {"time_limit": 5.0},
    {"soft_time_limit": 5.0},
    {"ignore_result": True},
    {"shadow_name": lambda args, kwargs, options: f"add {args[0]}"},
]


@pytest.mark.parametrize("changed", SETTINGS, ids=lambda changed: "-".join(changed))
async def test_settings_that_change_between_calls(queue, add, changed):
    before = await both(queue, add, 1, y=2)
    old = {name: getattr(queue.conf, name) for name in changed}
    queue.conf.update(changed)
    await both(queue, add, 1, y=2)
    queue.conf.update(old)
    assert await both(queue, add, 1, y=2) == before


@pytest.mark.parametrize("changed", OPTIONS, ids=lambda changed: "-".join(changed))
async def test_options_of_the_task_that_change_between_calls(queue, add, changed):
    before = await both(queue, add, 1)
    for name, value in changed.items():
        setattr(add, name, value)
    assert await both(queue, add, 1) != before
    for name in changed:
        delattr(add, name)
    assert await both(queue, add, 1) == before


async def test_options_of_the_tasks_class_that_change_between_calls(queue):
    class Base(Task):
        priority = 3

    @queue.task(name="app.based", base=Base)
    async def based():
        return 1

    await both(queue, based)
    Base.priority = 9
    assert (await both(queue, based))[1] == 9


async def test_routes_that_are_changed_in_place(queue, add):
    queue.conf.task_routes = {"app.add": "other"}
    assert (await both(queue, add, 1))[2] == "other"
    queue.conf.task_routes["app.add"] = "mail"
    assert (await both(queue, add, 1))[2] == "mail"


async def test_an_exchange(queue, add):
    queue.conf.update({"task_queues": [Queue("mail", "media", "topic", "video.#")]})
    add.exchange, add.routing_key = "media", "video.mp4"
    message, _, _ = await both(queue, add, 1)
    assert message["properties"]["delivery_info"] == {"exchange": "media", "routing_key": "video.mp4"}


async def test_inside_of_a_task(queue, add):
    request = Request(id="parent", root_id="the root")
    token = current_run.set(Run(add, request, queue))
    message, _, _ = await both(queue, add, 1)
    current_run.reset(token)
    assert (message["headers"]["parent_id"], message["headers"]["root_id"]) == ("parent", "the root")
    assert len(request.children) == 2


async def test_an_expiry_is_counted_from_each_call(queue, add):
    await add.delay(1)
    add.expires = 60.0
    expiries = set()
    for _ in range(2):
        await add.delay(1)
    for delivery in (await queue.broker.claim(["celery"], limit=10)).deliveries:
        expiries.add(json.loads(delivery.body)["headers"]["expires"])
    assert len(expiries) == 3, "one without, and two moments"


async def test_by_name_as_by_task(queue, add):
    await add.delay(1, y=2)
    await queue.send_task("app.add", [1], {"y": 2})
    await queue.send_task("app.add", [1], {"y": 2}, **LONG_WAY)
    claim = await queue.broker.claim(["celery"], limit=10)
    by_task, by_name, the_long_way = (content(delivery) for delivery in claim.deliveries)
    by_task[0]["headers"]["ignore_result"] = None  # who does not know the task leaves that open
    assert by_task == by_name == the_long_way


async def test_errors(queue, add):
    for options in ({}, LONG_WAY):
        with pytest.raises(EncodeError, match="object"):
            await add.apply_async((object(),), **options)
        with pytest.raises(PayloadTooLarge, match=r"app\.add.* was not sent: its message has"):
            await add.apply_async(("x" * (queue.conf.max_payload_bytes + 1),), **options)
    queue.conf.task_compression = "gzip"
    for options in ({}, LONG_WAY):
        with pytest.raises(PayloadTooLarge, match=r"app\.add was not sent: its arguments have"):
            await add.apply_async(("x" * (queue.conf.max_payload_bytes + 1),), **options)
    assert await queue.broker.depth(["celery"]) == {"celery": 0}


async def test_names_from_anywhere_do_not_fill_the_memory(queue, monkeypatch):
    monkeypatch.setattr("aioretryq.plain_calls._MOST", 10)
    calls = PlainCalls(queue.conf)
    for number in range(100):
        assert calls.of(f"app.task{number}", None) is not None
    assert len(calls._known) <= 10


async def test_a_fanout_exchange(queue, add):
    queue.conf.update({"task_queues": [Queue("celery"), Broadcast("news")]})
    add.queue = "news"
    async with queue.broker.bus().listen("news") as listener:
        await add.delay(1)
        await add.apply_async((1,), **LONG_WAY)
        heard = await listener.receive()
        while len(heard) < 2:
            heard += await listener.receive()
    first, second = (json.loads(each.body)["properties"]["delivery_info"] for each in heard)
    assert first == second
