"""Watching: filters, garbage on the channel, and servers that go away."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle

import pytest
from faults.proxy import Proxy
from watching import watching

from aioretryq import BrokerUnavailable, TaskQueue, Worker
from aioretryq.message import Broadcast
from aioretryq.protocol import envelope
from queues import memory_url, soon, until


def garbage():
    """Messages that nobody should send."""
    yield b""
    yield b"\xff\xfe garbage"
    yield b"[" * 100_000
    yield b"x" * 3_000_000
    yield json.dumps({"body": 7, "headers": {"hostname": "evil@h"}}).encode()
    for body in (b"not json", b"[[[[", b"{}", b'{"type": 7}', b'{"type": "task-started", "uuid": {}}'):
        yield envelope.encode(envelope.Envelope(body, headers={"hostname": "evil@h"}))
    dangerous = pickle.dumps(pytest.fail)
    yield envelope.encode(envelope.Envelope(dangerous, "application/x-python-serialize", "binary"))
    odd = {"type": "worker-online", "hostname": "\x1b[31mh", "freq": "often", "active": {}, "loadavg": "high"}
    yield envelope.encode(envelope.Envelope(json.dumps([odd]).encode()))


async def test_garbage_is_skipped_and_its_sender_named(url, caplog):
    caplog.set_level(logging.WARNING)
    async with TaskQueue(url) as queue, watching(queue) as told, queue.events() as counting:
        for number, body in enumerate(garbage()):
            await queue.broker.bus().publish([Broadcast("celeryev", f"task.evil{number}", body)])
        queue.connections.events.send("task-started", "good@h", {"uuid": "good"})
        await told.wait("good", "task-started")
        await soon(anext(counting))
        assert counting.skipped == len(list(garbage())) - 1  # the last one is readable
    assert {event.hostname for event in told} == {"\x1b[31mh", "good@h"}
    lines = [record.getMessage() for record in caplog.records if "were skipped" in record.getMessage()]
    assert len(lines) == 2  # one of each receiver, and not one of each message
    assert "1 events were skipped: from an unknown sender, on 'task.evil0'" in lines[0]


async def test_a_worker_minds_no_garbage(url):
    async with TaskQueue(url, worker_send_task_events=True) as queue:

        @queue.task(name="add")
        async def add(x, y):
            return x + y

        async with Worker(queue).running():
            for body in garbage():
                await queue.broker.bus().publish([Broadcast("celeryev", "worker.online", body)])
            assert await soon((await add.delay(1, 2)).get()) == 3


async def test_only_what_is_wanted():
    async with TaskQueue(memory_url()) as queue, watching(queue, "task-*ed", "worker-online") as told:
        for kind in ("task-started", "task-progress", "worker-online", "worker-heartbeat", "task-failed"):
            queue.connections.events.send(kind, "w@h", {"uuid": "i"})
        await told.wait("i", "task-failed")
    assert [event.type for event in told] == ["task-started", "worker-online", "task-failed"]


async def test_watchers_synchronise_their_clock():
    url = memory_url()
    async with TaskQueue(url) as queue, TaskQueue(url) as other, other.events() as events:
        queue.clock.adjust(1000)
        queue.connections.events.send("worker-online", "w@h", {})
        await soon(anext(events))
        assert other.clock.value > 1000
        client = other.clock.value
        queue.clock.adjust(5000)
        queue.connections.events.send("task-sent", "gen@h", {"uuid": "i"})  # clients hear of nothing
        await soon(anext(events))
        assert other.clock.value == client


async def test_workers_are_asked_to_show_themselves(url):
    async with (
        TaskQueue(url, worker_heartbeat_interval=3600) as queue,
        Worker(queue, name="w1@here").running(),
        watching(queue) as told,
    ):
        heartbeat = await told.of_worker("worker-heartbeat")
    assert (heartbeat.hostname, heartbeat.fields["freq"]) == ("w1@here", 3600)


async def test_waiting_may_be_given_up_without_losing_anything():
    async with TaskQueue(memory_url()) as queue, queue.events() as events:
        heard, given_up, sent = [], 0, 0
        while len(heard) < 20 or not given_up:
            if sent < 20 and sent <= given_up:
                queue.connections.events.send("task-started", "w@h", {"uuid": str(sent)})
                sent += 1
            try:
                async with asyncio.timeout(0.0005):
                    heard.append((await anext(events)).uuid)
            except TimeoutError:
                given_up += 1
    assert heard == list(map(str, range(20)))


async def test_it_goes_on_after_an_outage(redis_server, redis_url, caplog):
    caplog.set_level(logging.WARNING)
    proxy = Proxy(redis_server.port)
    proxy.start()
    options = {"redis_socket_timeout": 0.5, "broker_connection_timeout": 0.5}
    try:
        async with (
            TaskQueue(redis_url) as queue,
            TaskQueue(f"redis://127.0.0.1:{proxy.port}/0", **options) as far,
            watching(far) as told,
        ):
            queue.connections.events.send("task-started", "w@h", {"uuid": "before"})
            await told.wait("before", "task-started")
            proxy.cut()
            await until(lambda: "is gone" in caplog.text)
            proxy.heal()
            async with asyncio.timeout(20):
                while not told.of("after"):
                    queue.connections.events.send("task-started", "w@h", {"uuid": "after"})
                    await asyncio.sleep(0.05)
    finally:
        proxy.close()
    assert "is back after" in caplog.text


async def test_a_broker_that_cannot_be_reached_is_an_error_at_once(redis_server, redis_url):
    proxy = Proxy(redis_server.port)
    proxy.start()
    options = {"redis_socket_timeout": 0.5, "broker_connection_timeout": 0.5}
    try:
        async with TaskQueue(f"redis://127.0.0.1:{proxy.port}/0", **options) as queue:
            proxy.cut()
            with pytest.raises(BrokerUnavailable):
                async with queue.events():
                    pass
    finally:
        proxy.close()
