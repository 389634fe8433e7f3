"""Whatever anybody sends to remote control: the worker goes on, and its log says who it was."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import pickle
import time

import pytest
import redis
from control_lab import Lab

from aioretryq.message import Broadcast, Outgoing, TaskMessage
from aioretryq.protocol.control import LARGEST_REQUEST, request_exchange
from aioretryq.protocol.task import encode_task
from queues import soon, until

EXCHANGE = request_exchange("celery")


def envelope(body, *, content_type="application/json", headers=None):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.dumps(
        {
            "body": base64.b64encode(data).decode(),
            "content-type": content_type,
            "content-encoding": "utf-8",
            "headers": headers or {},
            "properties": {"body_encoding": "base64"},
        }
    ).encode()


class Exploding:
    def __reduce__(self):
        return (print, ("a pickle was loaded",))


REPLY_TO = {"exchange": "reply.celery.pidbox", "routing_key": "mallory"}
HOSTILE = {
    "garbage": b"\x00\xff not a message",
    "no object": b"[]",
    "empty object": b"{}",
    "body is no base64": b'{"body": "!", "properties": {"body_encoding": "base64"}}',
    "pickle": envelope(pickle.dumps(Exploding()), content_type="application/x-python-serialize"),
    "body is a list": envelope([1, 2]),
    "no method": envelope({"reply_to": REPLY_TO}),
    "method is a number": envelope({"method": 5, "reply_to": REPLY_TO}),
    "arguments are a list": envelope({"method": "ping", "arguments": [1], "reply_to": REPLY_TO}),
    "destination is a number": envelope({"method": "ping", "destination": 5, "reply_to": REPLY_TO}),
    "reply_to is a text": envelope({"method": "ping", "reply_to": "mallory"}),
    "reply into a queue of tasks": envelope(
        {"method": "ping", "reply_to": {"exchange": "celery", "routing_key": "celery"}, "ticket": "mallory"}
    ),
    "hostile pattern": envelope({"method": "ping", "pattern": "(a+)+$", "matcher": "pcre", "reply_to": REPLY_TO}),
    "unknown matcher": envelope({"method": "ping", "pattern": "x", "matcher": "os.system", "reply_to": REPLY_TO}),
    "huge": envelope({"method": "x" * LARGEST_REQUEST, "reply_to": REPLY_TO}),
    "deep": b'{"body": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "expires is a text": envelope({"method": "shutdown", "reply_to": REPLY_TO}, headers={"expires": "soon"}),
    "stale": envelope({"method": "shutdown", "reply_to": REPLY_TO}, headers={"expires": time.time() - 3600}),
}
UNNAMED = {
    "garbage",
    "no object",
    "empty object",
    "body is no base64",
    "pickle",
    "body is a list",
    "deep",
}
NAMED = {name for name, body in HOSTILE.items() if name not in UNNAMED}
WRONG = {
    "unknown": ("__import__", {"name": "os"}),
    "method of Python": ("__class__", {}),
    "ids are numbers": ("revoke", {"task_id": [1, 2]}),
    "ids are an object": ("revoke", {"task_id": {"a": 1}}),
    "too many ids": ("revoke", {"task_id": [str(n) for n in range(20_000)]}),
    "stamps are a text": ("revoke_by_stamped_headers", {"headers": "x"}),
    "rate is a list": ("rate_limit", {"task_name": "lab.add", "rate_limit": ["1/s"]}),
    "rate is not finite": ("rate_limit", {"task_name": "lab.add", "rate_limit": "inf/s"}),
    "negative limit": ("time_limit", {"task_name": "lab.add", "hard": -1}),
    "task is an object": ("time_limit", {"task_name": {}, "hard": 1}),
    "grow by a text": ("pool_grow", {"n": "10**9"}),
    "grow without end": ("pool_grow", {"n": 10**12}),
    "queue is an object": ("add_consumer", {"queue": {"a": 1}}),
    "queue with a line break": ("add_consumer", {"queue": "a\nb"}),
    "exchange of another kind": ("add_consumer", {"queue": "a", "exchange_type": "headers"}),
    "ids of query_task": ("query_task", {"ids": 5}),
    "options of registered": ("registered", {"taskinfoitems": {"a": 1}}),
    "no arguments": ("terminate", {}),
}
HARMLESS = {
    "revoked is an object of objects": ("hello", {"from_node": {"a": 1}, "revoked": {"id": [1.5, "id"]}}),
    "samples is a text": ("memdump", {"samples": "x"}),
    "additional arguments": ("ping", {"self": 1, "call": 2, "state": 3, "request": 4}),
    "election": ("election", {"id": [1], "topic": {}, "action": 5}),
}


async def alive(lab):
    assert await lab.client.control.ping(timeout=15) == {"w1@lab": {"ok": "pong"}}
    assert await soon((await lab.client.send_task("lab.add", [1, 2])).get()) == 3


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_is_no_request_is_logged_with_its_sender(memory_lab, caplog, capsys, name):
    worker = await memory_lab.worker()
    bus = memory_lab.client.broker.bus()
    await bus.publish([Broadcast(EXCHANGE, "", HOSTILE[name])])
    await until(lambda: "Ignored a request to remote control" in caplog.text)
    assert "sent by " in caplog.text
    if name in NAMED:
        assert "mallory" in caplog.text
    await alive(memory_lab)
    assert not worker.stopping
    assert "a pickle was loaded" not in capsys.readouterr().out
    assert len(caplog.text) < 5000


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_arguments_are_an_error_for_their_sender(memory_lab, caplog, name):
    worker = await memory_lab.worker()
    method, arguments = WRONG[name]
    replies = await memory_lab.client.control.broadcast(method, arguments, timeout=15)
    assert list(replies["w1@lab"]) == ["error"]
    assert "By remote control" not in caplog.text
    await alive(memory_lab)
    assert worker.queue.conf.lease == 30.0


@pytest.mark.parametrize("name", HARMLESS)
async def test_odd_arguments_that_mean_nothing(memory_lab, name):
    await memory_lab.worker()
    method, arguments = HARMLESS[name]
    replies = await memory_lab.client.control.broadcast(method, arguments, timeout=15)
    assert "error" not in (replies["w1@lab"] or {})
    await alive(memory_lab)


async def test_thousands_of_them_cost_nothing_that_stays(lab, caplog, redis_server):
    """Neither tasks nor connections, and a bounded number of lines."""
    caplog.set_level(logging.INFO)
    await lab.worker()
    await alive(lab)

    def connections():
        if not lab.url.startswith("redis"):
            return 0
        with redis.Redis.from_url(lab.url) as client:
            return client.info("clients")["connected_clients"]

    tasks, connected = len(asyncio.all_tasks()), connections()
    requests = [
        *(body for name, body in HOSTILE.items() if name != "huge"),
        *(envelope({"method": method, "arguments": arguments}) for method, arguments in WRONG.values()),
    ]
    bus = lab.client.broker.bus()
    for start in range(0, 1000, 100):
        await bus.publish([Broadcast(EXCHANGE, "", requests[n % len(requests)]) for n in range(start, start + 100)])
    await alive(lab)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert connections() <= connected
    assert len(caplog.records) < 150


@pytest.mark.parametrize("expires", [10**400, -(10**400), "1e999", "NaN", 2**60])
async def test_times_that_are_none(lab, expires):
    """One publication reaches every worker there is."""
    worker = await lab.worker()
    body = envelope({"method": "ping", "reply_to": REPLY_TO}, headers={"expires": "@"})
    await lab.client.broker.bus().publish([Broadcast(EXCHANGE, "", body.replace(b'"@"', str(expires).encode()))])
    await alive(lab)
    assert not worker.stopping


async def test_what_we_fail_to_read_ourselves(memory_lab, monkeypatch, caplog):
    """Whatever mistake is left in the reading of requests."""
    worker = await memory_lab.worker()

    def mistaken(payload, form):
        raise RuntimeError("a mistake")

    with monkeypatch.context() as patch:
        patch.setattr("aioretryq.worker.control.decode_request", mistaken)
        for _ in range(30):
            await memory_lab.client.broker.bus().publish([Broadcast(EXCHANGE, "", HOSTILE["no method"])])
        await until(lambda: "a mistake" in caplog.text and "mallory" in caplog.text)
        await memory_lab.client.broker.bus().publish([Broadcast(EXCHANGE, "", b"garbage")])
    await alive(memory_lab)
    assert not worker.stopping
    assert len(caplog.records) < 50


RESERVED = [
    "unacked",
    "unacked_index",
    "unacked_mutex",
    "_kombu.binding.celery",
    "aioretryq.leases",
    "celery-task-meta-1",
    "celery-taskset-meta-1",
]


@pytest.mark.parametrize("name", RESERVED)
async def test_names_that_are_taken_are_no_queues(memory_lab, name):
    worker = await memory_lab.worker()
    replies = await memory_lab.client.control.broadcast("add_consumer", {"queue": name}, timeout=15)
    assert list(replies["w1@lab"]) == ["error"]
    await alive(memory_lab)
    assert (await memory_lab.client.control.inspect().active_queues())[worker.name][0]["name"] == "celery"


async def test_a_key_that_is_no_queue(redis_url):
    async with Lab(redis_url).open() as lab:
        worker = await lab.worker()
        with redis.Redis.from_url(redis_url) as client:
            client.hset("cache", "1", "1")
            replies = await lab.client.control.broadcast(
                "add_consumer", {"queue": "cache", "exchange": "caches"}, timeout=15
            )
            assert list(replies["w1@lab"]) == ["error"]
            assert "WRONGTYPE" in str(replies)
            assert client.keys("_kombu.binding*cache*") == []
        await alive(lab)
        assert [queue["name"] for queue in (await lab.client.control.inspect().active_queues())[worker.name]] == [
            "celery"
        ]


async def test_ids_that_would_forge_a_line_of_the_log(memory_lab, caplog):
    caplog.set_level(logging.INFO)
    await memory_lab.worker()
    forged = "x\n2026-01-01 ERROR all is lost"
    for method in ("revoke", "terminate"):
        await memory_lab.client.control.broadcast(method, {"task_id": [forged], "signal": "TERM"}, timeout=15)
    stamps = {"headers": {"a\nb": ["c\nd"]}}
    await memory_lab.client.control.broadcast("revoke_by_stamped_headers", stamps, timeout=15)
    message = TaskMessage(id=forged, task="lab\n.add", args=[1, 2])
    await memory_lab.client.broker.send([Outgoing("celery", encode_task(message, tag="tag"), "tag")])
    await until(lambda: "is offered again" in caplog.text or "was not run to its end" in caplog.text)
    await alive(memory_lab)
    assert not [record for record in caplog.records if "\n" in record.getMessage()]


async def test_half_a_character_in_an_id_is_refused_before_anything_is_done(lab):
    await lab.worker()
    replies = await lab.client.control.broadcast("revoke", {"task_id": ["a", "\ud800"]}, timeout=15)
    assert list(replies["w1@lab"]) == ["error"]
    assert (await lab.client.control.inspect(timeout=15).revoked())["w1@lab"] == []
    with pytest.raises(TypeError, match="half a character"):
        await lab.client.control.revoke(["a", "\ud800"])


async def test_a_mass_of_ids(lab, caplog):
    caplog.set_level(logging.INFO)
    await lab.worker()
    for number in range(2):
        ids = [f"{number}-{each}" for each in range(9000)]
        await lab.client.control.broadcast("revoke", {"task_id": ids}, reply=False)
    await alive(lab)
    async with asyncio.timeout(20):
        while (await lab.client.AsyncResult(ids[-1]).status()) != "REVOKED":
            await asyncio.sleep(0.01)
    lines = [record.getMessage() for record in caplog.records if "By remote control" in record.getMessage()]
    assert lines[0].startswith("By remote control: tasks 0-0, 0-1, 0-2 and 8,997 more are revoked (")
