"""Messages that are no tasks, or not for us: dead letters with a reason, and a worker that lives."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aioretryq import ConfigError, TaskQueue, Worker
from aioretryq.message import Outgoing, TaskMessage
from aioretryq.protocol.task import encode_task
from queues import dead_letters, memory_url, soon


class Exploding:
    def __reduce__(self):
        return (exec, ("raise SystemExit('pickle was loaded')",))


@pytest.fixture
async def queue(url):
    async with TaskQueue(url, unknown_task_delay=3600) as queue:
        define(queue)
        yield queue


def define(queue):
    @queue.task(name="alive")
    async def alive(x=1):
        return x


def good(**changes):
    return json.loads(encode_task(TaskMessage(id=str(uuid.uuid4()), task="alive", **changes), tag="t"))


def body(value):
    return base64.b64encode(json.dumps(value).encode()).decode()


def changed(path, value):
    message = good()
    *parents, last = path
    target = message
    for name in parents:
        target = target[name]
    target[last] = value
    return json.dumps(message).encode()


def without(*path):
    message = good()
    *parents, last = path
    target = message
    for name in parents:
        target = target[name]
    del target[last]
    return json.dumps(message).encode()


BROKEN = {
    "empty": b"",
    "not JSON": b"\x00\xff\xfe not JSON",
    "not UTF-8": '{"body": "é"}'.encode("latin-1"),
    "a number": b"7",
    "a list": b"[]",
    "an empty object": b"{}",
    "null": b"null",
    "deep": b"[" * 100_000,
    "truncated": json.dumps(good()).encode()[:-20],
    "no body": without("body"),
    "no headers": without("headers"),
    "no id": without("headers", "id"),
    "no task": without("headers", "task"),
    "id is a number": changed(["headers", "id"], 3),
    "task is a list": changed(["headers", "task"], ["alive"]),
    "body is not base64": changed(["body"], "%%%"),
    "body is not JSON": changed(["body"], base64.b64encode(b"{").decode()),
    "body is a number": changed(["body"], body(3)),
    "body of two": changed(["body"], body([[], {}])),
    "args is a text": changed(["body"], body(["xy", {}, {}])),
    "kwargs is a list": changed(["body"], body([[], [], {}])),
    "pickle": changed(["content-type"], "application/x-python-serialize"),
    "yaml": changed(["content-type"], "application/x-yaml"),
    "unknown compression": changed(["headers", "compression"], "application/x-secret"),
    "not compressed": changed(["headers", "compression"], "application/x-gzip"),
    "eta is no time": changed(["headers", "eta"], "soon"),
    "retries is a text": changed(["headers", "retries"], "many"),
    "timelimit is a text": changed(["headers", "timelimit"], "long"),
    "expires is a list": changed(["headers", "expires"], [1]),
}


def pickled():
    message = good()
    message["content-type"], message["content-encoding"] = "application/x-python-serialize", "binary"
    message["body"] = base64.b64encode(pickle.dumps(Exploding())).decode()
    return json.dumps(message).encode()


async def put(queue, payload):
    await queue.broker.send([Outgoing("celery", payload, str(uuid.uuid4()))])


async def test_broken_messages_go_to_the_dead_letters_as_they_came(queue):
    payloads = [*BROKEN.values(), pickled()]
    for payload in payloads:
        await put(queue, payload)
    async with Worker(queue, name="w").running():
        assert await soon((await queue.send_task("alive", priority=9)).get()) == 1
        letters = await dead_letters(queue, len(payloads))
    assert sorted(letter.payload for letter in letters) == sorted(payloads)
    for letter in letters:
        assert letter.reason == "undecodable"
        assert letter.queue == "celery"
        assert letter.worker.startswith("w@")
        assert letter.error
    (no_pickle,) = [letter for letter in letters if letter.payload == payloads[-1]]
    assert "pickle" in no_pickle.error
    assert "accept_content" in no_pickle.error
    assert await queue.broker.depth(["celery"]) == {"celery": 0}


async def test_wrong_arguments_are_a_failure_of_the_task(queue):
    async with Worker(queue).running():
        for args, kwargs in (((1, 2), {}), ((), {"y": 1})):
            with pytest.raises(TypeError, match="alive"):
                await soon((await queue.send_task("alive", args, kwargs)).get())
    assert await queue.broker.dead() == []


async def test_unknown_tasks_are_parked_not_failed(queue):
    async with Worker(queue).running():
        results = [await queue.send_task(f"unknown.{number}") for number in range(3)]
        assert await soon((await queue.send_task("alive", priority=9)).get()) == 1
        async with asyncio.timeout(15):
            while await queue.broker.depth(["celery"]) != {"celery": 3}:
                await asyncio.sleep(0.001)
    assert [await result.status() for result in results] == ["PENDING"] * 3
    assert await queue.broker.depth(["celery"]) == {"celery": 3}
    assert await queue.broker.dead() == []


async def test_a_minimal_message_of_another_client_runs(queue):
    task_id = str(uuid.uuid4())
    message = {
        "body": body([[5], {}, {}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "alive", "id": task_id},
        "properties": {"body_encoding": "base64", "delivery_tag": "x", "delivery_info": {}},
    }
    await put(queue, json.dumps(message).encode())
    async with Worker(queue).running():
        assert await soon(queue.AsyncResult(task_id).get()) == 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    *(("headers", name) for name in good()["headers"]),
    *(("properties", name) for name in good()["properties"]),
    *((name,) for name in good()),
    ("headers", "compression"),
    ("headers", "redelivered"),
    ("properties", "expiration"),
]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(FIELDS), json_values), min_size=1, max_size=3))
async def test_any_value_in_any_field_leaves_the_worker_alive(changes):
    message = good()
    for path, value in changes:
        target = message
        for name in path[:-1]:
            target = target[name] if isinstance(target, dict) and isinstance(target.get(name), dict) else {}
        target[path[-1]] = value
    async with TaskQueue(memory_url(), unknown_task_delay=3600) as queue:
        define(queue)
        await put(queue, json.dumps(message).encode())
        async with Worker(queue).running():
            assert await soon((await queue.send_task("alive", priority=9)).get()) == 1


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
async def test_any_bytes_leave_the_worker_alive(payload):
    async with TaskQueue(memory_url()) as queue:
        define(queue)
        await put(queue, payload)
        async with Worker(queue).running():
            assert await soon((await queue.send_task("alive", priority=9)).get()) == 1
        assert await queue.broker.dead_count() == 1


async def test_an_id_that_no_server_can_store_is_buried_and_its_neighbours_run(url):
    async with TaskQueue(url) as queue:

        @queue.task
        async def fine(number):
            return number

        poison = TaskMessage(id="x\ud800", task=fine.name)
        body = encode_task(poison, tag="poison")
        await queue.broker.send([Outgoing("celery", body, "poison")])
        async with Worker(queue).running():
            results = [await fine.delay(number) for number in range(5)]
            assert [await soon(result.get()) for result in results] == list(range(5))
            assert await soon((await fine.delay(9)).get()) == 9


@pytest.mark.parametrize("options", [{"queue": 5}, {"queue": "\ud800"}, {"task_id": uuid.uuid4()}, {"priority": 5.5}])
async def test_a_bad_option_of_a_call_harms_that_call_only(url, options):
    async with TaskQueue(url) as queue:
        with pytest.raises(ConfigError):
            await queue.send_task("nothing", **options)
        await queue.send_task("nothing")
        assert (await queue.broker.depth(["celery"]))["celery"] == 1


async def test_what_a_cancelled_body_raises_while_it_cleans_up_is_not_its_failure(url):
    begun = asyncio.Event()
    async with TaskQueue(url) as queue:

        @queue.task
        async def cut_off():
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                raise ConnectionError("closed under our feet")

        result = await cut_off.delay()
        async with Worker(queue, grace=0).running():
            await soon(begun.wait())
        assert await result.status() == "PENDING"
        assert (await queue.broker.depth(["celery"]))["celery"] == 1
