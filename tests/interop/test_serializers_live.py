"""Every serializer and compression, from a Celery client through our worker and back, and the other way round."""

from __future__ import annotations

import asyncio
import json

import kombu
import pytest
import redis
from celery import Celery
from formats_fleet import COMPRESSIONS, PATIENCE, SERIALIZERS, Fleet, celery_app
from protocol.keys import identity

from aioretryq import ContentDisallowed, EncodeError, Worker
from aioretryq.protocol.compression import content_type
from aioretryq.protocol.content import CONTENT_TYPES
from queues import dead_letters, soon

VALUE = {"text": "é" * 50, "list": [1, 2.5, None, True], "nested": {"k": ["v"]}}
WAYS = [
    *((serializer, None) for serializer in SERIALIZERS),
    *(("json", compression) for compression in COMPRESSIONS),
    ("auth", "zstd"),
    ("pickle", "brotli"),
    ("yaml", "gzip"),
    ("msgpack", "lzma"),
]


def tasks_of(queue):
    @queue.task(name="ours.echo")
    async def echo(value):
        return value

    @queue.task(name="ours.flaky", bind=True, max_retries=2, default_retry_delay=0)
    async def flaky(self, value):
        if self.request.retries < 2:
            raise self.retry()
        return value

    @queue.task(name="ours.fail")
    async def fail(message):
        raise LookupError(message, 42)


@pytest.mark.parametrize(("serializer", "compression"), WAYS)
async def test_celery_client_our_worker(fleet: Fleet, client: Celery, serializer, compression) -> None:
    """Also through retries: the message that comes back is written in the same way."""
    async with fleet.queue() as queue, Worker(queue).running():
        tasks_of(queue)
        options = {"serializer": serializer, "compression": compression}
        for name in ("ours.echo", "ours.flaky"):
            result = await asyncio.to_thread(client.send_task, name, (VALUE,), **options)
            assert await asyncio.to_thread(result.get, timeout=PATIENCE) == VALUE


@pytest.mark.parametrize(("serializer", "compression"), WAYS)
async def test_our_client_celery_worker(fleet: Fleet, serializer, compression) -> None:
    async with fleet.queue() as queue:
        options = {"serializer": serializer, "compression": compression, "queue": "theirs"}
        result = await queue.send_task("echo.json.None", [VALUE], **options)
        assert await result.get(timeout=PATIENCE) == VALUE


@pytest.mark.parametrize(("serializer", "compression"), WAYS)
async def test_kombu_reads_the_message_that_is_sent(fleet: Fleet, serializer, compression) -> None:
    options = {"task_serializer": serializer, "task_compression": compression}
    async with fleet.queue(task_default_queue="silent", **options) as queue:
        sent = await queue.send_task("anything", [VALUE])
    with kombu.Connection(fleet.url) as connection, connection.SimpleQueue("silent") as silent:
        silent.consumer.accept = {CONTENT_TYPES[serializer]}
        message = silent.get(timeout=PATIENCE)
        message.ack()
    assert message.decode()[0] == [VALUE]
    assert message.content_type == CONTENT_TYPES[serializer]
    assert message.headers.get("compression") == (compression and content_type(compression))
    assert message.properties["correlation_id"] == sent.id


class TestOptions:
    async def test_of_a_task_a_call_and_the_setting(self, fleet: Fleet) -> None:
        async with fleet.queue(task_default_queue="options", task_compression="gzip") as queue:

            @queue.task(name="plain")
            async def plain(): ...

            @queue.task(name="chosen", serializer="yaml", compression="zstd")
            async def chosen(): ...

            await plain.delay()
            await chosen.delay()
            await chosen.apply_async(serializer="msgpack", compression="xz")
            await queue.send_task("plain", compression="application/x-bz2")
            with redis.Redis.from_url(fleet.url) as server:
                found = [json.loads(entry) for entry in reversed(server.lrange("options", 0, -1))]
                server.delete("options")
        assert [(each["content-type"], each["headers"]["compression"]) for each in found] == [
            ("application/json", "application/x-gzip"),
            ("application/x-yaml", "application/zstd"),
            ("application/x-msgpack", "application/x-lzma"),
            ("application/json", "application/x-bz2"),
        ]

    async def test_what_a_serializer_cannot_hold_is_not_sent(self, fleet: Fleet) -> None:
        async with fleet.queue() as queue:
            for serializer in ("json", "yaml", "msgpack"):
                with pytest.raises(EncodeError):
                    await queue.send_task("ours.echo", [object()], serializer=serializer)


class TestRefused:
    @pytest.mark.parametrize("serializer", ["yaml", "msgpack", "pickle", "auth"])
    async def test_what_is_not_accepted_is_buried_and_its_sender_told(
        self, fleet: Fleet, client: Celery, serializer
    ) -> None:
        async with fleet.queue(accept_content=["json"], task_default_queue="strict") as queue:
            async with Worker(queue).running():
                options = {"serializer": serializer, "queue": "strict"}
                result = await asyncio.to_thread(client.send_task, "ours.echo", (VALUE,), **options)
                with pytest.raises(Exception, match=f"{serializer}.*accept_content") as told:
                    await asyncio.to_thread(result.get, timeout=PATIENCE)
                assert type(told.value).__name__ == ContentDisallowed.__name__
            (letter,) = await dead_letters(queue, 1)
            assert letter.task_id == result.id
            await queue.dead_letters.purge()

    async def test_a_message_of_nobody_who_is_trusted(self, fleet: Fleet, tmp_path) -> None:
        strangers = tmp_path / "store"
        from_outside = identity(tmp_path, "stranger", strangers)
        async with fleet.queue(accept_content=["auth"], task_default_queue="signed") as queue:
            async with (
                fleet.queue(task_default_queue="signed", **from_outside) as outside,
                Worker(queue).running(),
            ):
                result = await outside.send_task("ours.echo", [1], serializer="auth")
                with pytest.raises(Exception, match="security_cert_store"):
                    await soon(queue.AsyncResult(result.id).get(timeout=PATIENCE))
            await dead_letters(queue, 1)
            await queue.dead_letters.purge()


class TestSignedOnly:
    async def test_nothing_but_signed_messages_and_results(self, fleet: Fleet) -> None:
        """As `setup_security` has it: everything is signed, by Celery's client and by our worker."""
        signed = {"accept_content": ["auth"], "task_serializer": "auth", "result_serializer": "auth"}
        with celery_app(fleet) as app:
            app.conf.update(signed)
            async with fleet.queue(**signed) as queue, Worker(queue).running():
                tasks_of(queue)
                good = await asyncio.to_thread(app.send_task, "ours.flaky", (VALUE,))
                assert await asyncio.to_thread(good.get, timeout=PATIENCE) == VALUE
                bad = await asyncio.to_thread(app.send_task, "ours.fail", ("no",))
                with pytest.raises(LookupError) as raised:
                    await asyncio.to_thread(bad.get, timeout=PATIENCE)
                assert raised.value.args == ("no", 42)
