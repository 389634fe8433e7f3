"""Who is asked, and how long the asking takes."""

from __future__ import annotations

import asyncio
import base64
import json
import time

import pytest
from control_lab import Lab
from protocol.keys import identity

from aioretryq import BrokerUnavailable, ProtocolError, TaskQueue
from aioretryq.message import Broadcast
from aioretryq.protocol.control import reply_exchange, request_exchange
from queues import memory_url, soon
from redis_server import RedisServer

PONG = {"ok": "pong"}


async def test_it_ends_as_soon_as_all_have_answered(lab):
    for name in ("w1@lab", "w2@lab", "other@lab"):
        await lab.worker(name)
    began = time.monotonic()
    assert await lab.client.control.ping(timeout=60) == {"w1@lab": PONG, "w2@lab": PONG, "other@lab": PONG}
    assert await lab.client.control.ping(destination=["w1@lab", "w2@lab"], timeout=60) == {
        "w1@lab": PONG,
        "w2@lab": PONG,
    }
    assert await lab.client.control.inspect(destination="w2@lab", timeout=60).ping() == {"w2@lab": PONG}
    assert len(await lab.client.control.ping(limit=1, timeout=60)) >= 1
    assert time.monotonic() - began < 20
    assert await lab.client.control.ping(pattern="w?@*", timeout=0.5) == {"w1@lab": PONG, "w2@lab": PONG}
    assert await lab.client.control.ping(pattern=r"w[12]@", matcher="pcre", limit=2, timeout=60) == {
        "w1@lab": PONG,
        "w2@lab": PONG,
    }


async def test_nobody_there(lab):
    began = time.monotonic()
    assert await lab.client.control.ping(timeout=60) == {}
    assert await lab.client.control.ping(timeout=60, reply=False) == {}
    assert time.monotonic() - began < 20


async def test_one_that_does_not_answer_is_waited_for_until_the_timeout(lab):
    await lab.worker()
    bus = lab.client.broker.bus()
    async with bus.listen(request_exchange("celery")):  # hears, and is silent
        began = time.monotonic()
        assert await lab.client.control.ping(timeout=0.3) == {"w1@lab": PONG}
        assert time.monotonic() - began >= 0.3


async def test_many_at_once(lab):
    await lab.worker()
    replies = await soon(asyncio.gather(*[lab.client.control.ping(timeout=15) for _ in range(50)]))
    assert replies == [{"w1@lab": PONG}] * 50


async def test_a_wrong_pattern_is_an_error_at_once(memory_lab):
    with pytest.raises(ProtocolError, match="for ever"):
        await memory_lab.client.control.ping(pattern="(a+)+", matcher="pcre")


async def test_signed_requests(tmp_path, caplog):
    """Where only what is signed is accepted, nobody else is heard."""
    url = memory_url()
    signed = {"task_serializer": "auth", "accept_content": ["auth"], **identity(tmp_path, "me", tmp_path / "store")}
    async with Lab(url).open() as lab, TaskQueue(url, **signed) as client:
        await lab.worker(conf=signed)
        assert await client.control.ping(timeout=15) == {"w1@lab": PONG}
        assert await lab.client.control.ping(timeout=0.1) == {}
        assert "accept_content allows only auth" in caplog.text


async def test_what_is_no_reply_is_skipped(memory_lab, caplog):
    client = memory_lab.client
    bus = client.broker.bus()

    async def impostor(ear):
        (request,) = await ear.receive()
        address = client_address(request)
        for body in (b"garbage", b'{"body": "W10=", "properties": {"body_encoding": "base64"}}'):
            await bus.answer(Broadcast(reply_exchange("celery"), address, body), ttl=5)

    async with bus.listen(request_exchange("celery")) as ear:
        answering = asyncio.create_task(impostor(ear))
        await memory_lab.worker()
        assert await client.control.ping(timeout=0.3) == {"w1@lab": PONG}
        await answering
    assert caplog.text.count("what is no reply") == 2


def client_address(request):
    body = json.loads(base64.b64decode(json.loads(request.body)["body"]))
    return body["reply_to"]["routing_key"]


async def test_a_broker_that_is_gone_is_an_error():
    server = RedisServer()
    server.start()
    async with TaskQueue(server.url, redis_socket_timeout=0.5) as client:
        server.close()
        with pytest.raises(BrokerUnavailable):
            await client.control.ping()
