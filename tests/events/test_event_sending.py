"""The sender: many events in few messages, a bounded buffer, and outages that cost events but never work."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from contextlib import asynccontextmanager

import pytest
from faults.proxy import Proxy

from aioretryq import EncodeError, TaskQueue
from aioretryq.protocol import envelope
from aioretryq.workflows.sending import send_signature
from queues import memory_url, soon, until


@asynccontextmanager
async def listening(queue):
    """Every message of the events' exchange, as it is published."""
    heard = []
    async with queue.broker.bus().listen("celeryev") as ear:

        async def listen():
            while True:
                heard.extend(await ear.receive())

        task = asyncio.create_task(listen())
        yield heard
        task.cancel()


def events_in(message):
    body = json.loads(envelope.decode(message.body).body)
    return body if isinstance(body, list) else [body]


def told(heard):
    return [event for message in heard for event in events_in(message)]


async def test_events_of_tasks_travel_together_others_alone():
    async with TaskQueue(memory_url()) as queue, listening(queue) as heard:
        sender = queue.connections.events
        for number in range(250):
            sender.send("task-started", "w@h", {"uuid": str(number)})
        sender.send("worker-heartbeat", "w@h", {"freq": 2.0})
        sender.send("task-started", "w@h", {"uuid": "after"})
        sender.send("task-started", "other@h", {"uuid": "elsewhere"})
        sender.send("custom-thing", "other@h", {})
        await sender.flush(5)
        await until(lambda: len(heard) == 7)
    shape = [(message.routing_key, len(events_in(message))) for message in heard]
    assert shape == [
        ("task.multi", 100),
        ("task.multi", 100),
        ("task.multi", 50),
        ("worker.heartbeat", 1),
        ("task.started", 1),
        ("task.started", 1),
        ("custom.thing", 1),
    ]
    assert {envelope.decode(message.body).headers["hostname"] for message in heard[:5]} == {"w@h"}
    clocks = [event["clock"] for event in told(heard)]
    assert clocks == sorted(clocks)


async def test_large_events_travel_in_messages_of_their_own():
    async with TaskQueue(memory_url()) as queue, listening(queue) as heard:
        for number in range(3):
            queue.connections.events.send("task-progress", "w@h", {"uuid": str(number), "log": ["x" * 1000] * 200})
        await queue.connections.events.flush(5)
        await until(lambda: len(told(heard)) == 3)
    assert len(heard) == 3


async def test_closing_the_queue_sends_what_is_waiting():
    url = memory_url()
    async with TaskQueue(url) as watcher, listening(watcher) as heard:
        async with TaskQueue(url) as queue:
            for _ in range(10):
                queue.connections.events.send("custom-thing", "w@h", {})
        await until(lambda: len(heard) == 10)


async def test_any_thread_may_send():
    async with TaskQueue(memory_url()) as queue, listening(queue) as heard:
        sender = queue.connections.events

        def work():
            for _ in range(100):
                sender.send("task-started", "w@h", {"uuid": threading.current_thread().name})

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        await until(lambda: len(told(heard)) == 400)
        for thread in threads:
            thread.join()
    assert len({event["clock"] for event in told(heard)}) == 400


async def test_the_oldest_are_dropped_counted_and_told_once(caplog):
    caplog.set_level(logging.WARNING)
    async with TaskQueue(memory_url(), event_buffer_bytes=2000) as queue, listening(queue) as heard:
        sender = queue.connections.events
        for number in range(100):  # nobody else runs in between
            sender.send("task-started", "w@h", {"uuid": str(number)})
        assert sender.dropped > 80
        await sender.flush(5)
        await until(lambda: bool(heard))
    kept = [int(event["uuid"]) for event in told(heard)]
    assert kept == list(range(sender.dropped, 100))
    assert [r.getMessage() for r in caplog.records] == ["1 events were not sent: event_buffer_bytes are full"]


async def test_what_cannot_be_sent_is_the_senders_error():
    async with TaskQueue(memory_url()) as queue:
        with pytest.raises(EncodeError):
            queue.connections.events.send("custom-thing", "w@h", {"value": object()})
        assert queue.connections.events.dropped == 0


async def test_an_outage_costs_the_oldest_events_and_nothing_else(redis_server, redis_url):
    proxy = Proxy(redis_server.port)
    proxy.start()
    options = {"redis_socket_timeout": 0.5, "broker_connection_timeout": 0.5, "event_buffer_bytes": 20_000}
    try:
        async with (
            TaskQueue(redis_url) as watcher,
            listening(watcher) as heard,
            TaskQueue(f"redis://127.0.0.1:{proxy.port}/0", **options) as queue,
        ):
            sender = queue.connections.events
            proxy.cut()
            sender.send("task-started", "w@h", {"uuid": "first"})
            await until(lambda: sender.stuck)
            for number in range(1000):
                sender.send("task-started", "w@h", {"uuid": str(number)})
            assert 800 < sender.dropped < 1000
            before = time.monotonic()
            await sender.flush(0.1)
            assert time.monotonic() - before < 1
            proxy.heal()
            await until(lambda: "999" in {event["uuid"] for event in told(heard)})
            assert not sender.stuck
    finally:
        proxy.close()
    # Those that were in the buffer, and the one that was on its way.
    assert {event["uuid"] for event in told(heard)} == {"first", *map(str, range(sender.dropped, 1000))}


async def test_clients_tell_what_they_send(url):
    async with TaskQueue(url, task_send_sent_event=True) as queue, listening(queue) as heard:
        result = await queue.send_task("some.task", [1], {"k": "v"}, queue="other", countdown=60)
        await soon(queue.connections.events.flush(5))
        await until(lambda: bool(heard))
    (event,) = told(heard)
    assert heard[0].routing_key == "task.sent"
    assert event["hostname"].startswith("gen")
    golden = {"uuid", "root_id", "parent_id", "name", "args", "kwargs", "retries", "eta", "expires", "queue"}
    assert golden <= event.keys()
    assert (event["uuid"], event["root_id"], event["name"]) == (result.id, result.id, "some.task")
    assert (event["args"], event["kwargs"], event["queue"], event["routing_key"]) == (
        "(1,)",
        "{'k': 'v'}",
        "other",
        "other",
    )
    assert event["eta"] is not None


async def test_a_workflow_tells_each_of_its_messages(url):
    calls = [{"task": "some.task", "args": [n], "kwargs": {}, "options": {}} for n in range(3)]
    group = {"task": "celery.group", "args": [], "kwargs": {"tasks": calls}, "options": {}, "subtask_type": "group"}
    async with TaskQueue(url, task_send_sent_event=True) as queue, listening(queue) as heard:
        await send_signature(queue, group)
        await soon(queue.connections.events.flush(5))
        await until(lambda: len(told(heard)) == len(calls))
    assert [event["args"] for event in told(heard)] == ["(0,)", "(1,)", "(2,)"]


async def test_clients_tell_nothing_unless_asked():
    async with TaskQueue(memory_url()) as queue, listening(queue) as heard:
        await queue.send_task("some.task")
        queue.connections.events.send("custom-thing", "w@h", {})
        await until(lambda: bool(heard))
    assert [event["type"] for event in told(heard)] == ["custom-thing"]
