"""Who is asked, and how long the asking takes."""

from __future__ import annotations

import asyncio
import base64
import json
import time

import pytest
from control_lab import Lab
from protocol.keys import identity

from aioretryq import BrokerUnavailable, ConfigError, ProtocolError, TaskQueue
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
        replies = await lab.client.control.ping(timeout=0.1)
        assert (replies.heard, replies.silent, replies.missing) == (2, 1, ())
        assert (await lab.client.control.ping(timeout=15, limit=1)).silent == 0
        replies = await lab.client.control.ping(destination=["w1@lab", "nope@lab"], timeout=0.1)
        assert (dict(replies), replies.silent, replies.missing) == ({"w1@lab": PONG}, 1, ("nope@lab",))


async def test_a_revocation_is_kept_where_nobody_answers(memory_lab):
    control = memory_lab.client.control
    assert (await control.revoke("x")).kept
    assert (await control.revoke_by_stamped_headers({"a": "b"}, reply=False)).kept
    assert not (await control.revoke("x", destination="w1@lab", timeout=0.1)).kept
    assert not (await control.ping()).kept


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (lambda control: control.revoke(""), ConfigError, "an empty one"),
        (lambda control: control.revoke([]), ConfigError, "an empty one, or none"),
        (lambda control: control.terminate(["a", ""]), ConfigError, "an empty one"),
        (lambda control: control.revoke(5), TypeError, "the id of a task is a text"),
        (lambda control: control.revoke_by_stamped_headers({}), ConfigError, "there is none"),
        (lambda control: control.rate_limit("t", "bogus"), ConfigError, "rate_limit is a rate like"),
        (lambda control: control.rate_limit("", "1/s"), ConfigError, "task_name is empty"),
        (lambda control: control.time_limit("t", soft="soon"), TypeError, "soft is a number of seconds"),
        (lambda control: control.pool_grow("x"), TypeError, "n is a whole number"),
        (lambda control: control.pool_shrink(True), TypeError, "n is a whole number"),
        (lambda control: control.cancel_consumer(None), TypeError, "queue is a text"),
        (lambda control: control.call("rate_limit", {}), TypeError, "task_name and rate_limit are missing"),
        (lambda control: control.inspect(tmeout=3).ping(), TypeError, "Did you mean 'timeout'?"),
        (lambda control: control.ping(destinations=["a"]), TypeError, "Did you mean 'destination'?"),
        (lambda control: control.revoke("x", tmeout=3), TypeError, "Did you mean 'timeout'?"),
    ],
)
async def test_what_no_worker_understands_is_not_sent(memory_lab, ask, error, said):
    worker = await memory_lab.worker()
    with pytest.raises(error, match=said.replace("?", r"\?")):
        await ask(memory_lab.client.control)
    assert (await memory_lab.client.control.inspect(timeout=15).revoked())[worker.name] == []


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
