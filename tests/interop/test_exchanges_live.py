"""Exchanges and broadcasts together with a real Celery worker, with and without a prefix of all keys."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import celery
import kombu
import kombu.common
import pytest
import redis

from aioretryq import Broadcast, Queue, TaskQueue, current_task, message
from aioretryq.brokers.redis import RedisBroker
from aioretryq.config import Settings
from aioretryq.message import Binding
from aioretryq.protocol.envelope import decode
from aioretryq.worker import Worker
from programs import Program, running
from queues import PATIENCE
from redis_server import RedisServer

HERE = Path(__file__).parent
DECLARED = [
    "celery",
    Queue("our-errors", "logs", "topic", "*.error"),
    Queue("our-parcels", "post", "direct", "parcel"),
    Broadcast("news"),
]


class Place:
    """A server with a Celery worker on it."""

    def __init__(self, url: str, prefix: str, celery_worker: Program) -> None:
        self.url = url
        self.options = {"global_keyprefix": prefix}
        self.prefix = prefix
        self.celery_worker = celery_worker

    def queue(self, **settings: Any) -> TaskQueue:
        return TaskQueue(self.url, broker_transport_options=self.options, **settings)

    @asynccontextmanager
    async def our_worker(self, *queues: str) -> AsyncIterator[Worker]:
        async with self.our_worker_of(self.queue(task_queues=DECLARED), *queues) as worker:
            yield worker

    @asynccontextmanager
    async def our_worker_of(self, queue: TaskQueue, *queues: str) -> AsyncIterator[Worker]:
        async def note(value: object) -> None:
            info = current_task().request.delivery_info
            with redis.Redis.from_url(self.url) as server:
                server.rpush("ran", f"ours {info['exchange']} {info['routing_key']} {value}")

        for name in ("exchanges.note", "exchanges.fan"):
            queue.task(name=name)(note)
        async with Worker(queue, queues=queues, name="ours@test").running() as worker:
            yield worker

    def celery_app(self, **settings: Any) -> celery.Celery:
        app = celery.Celery(broker=self.url, backend=self.url, set_as_current=False)
        app.conf.update(broker_transport_options=self.options, **settings)
        return app

    async def ran(self, *expected: str) -> None:
        with redis.Redis.from_url(self.url) as server:
            async with asyncio.timeout(PATIENCE):
                while server.llen("ran") < len(expected):
                    await asyncio.sleep(0.01)
            assert sorted(entry.decode() for entry in server.lrange("ran", 0, -1)) == sorted(expected)
            server.delete("ran")


@pytest.fixture(scope="module", params=["", "team:"], ids=["plain", "prefixed"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    server = RedisServer()
    server.start()
    command = [sys.executable, "-m", "celery", "-A", "exchanges_celery", "worker", "-P", "solo", "-l", "INFO"]
    environment = {"INTEROP_REDIS": server.url, "INTEROP_PREFIX": request.param}
    try:
        with running(*command, env=environment, cwd=HERE) as program:
            program.wait_for(" ready.", timeout=60)
            yield Place(server.url, request.param, program)
    finally:
        server.close()


class TestTopics:
    async def test_our_sender_reaches_both(self, place: Place) -> None:
        async with place.our_worker("our-errors"), place.queue() as client:
            await client.send_task("exchanges.note", [1], exchange="logs", routing_key="db.error")
            await place.ran("ours logs our-errors 1", "celery logs db.error 1")

    async def test_celerys_sender_reaches_both(self, place: Place) -> None:
        logs = kombu.Exchange("logs", type="topic")
        async with place.our_worker("our-errors"):
            with place.celery_app(task_queues=[kombu.Queue("celery-errors", logs, routing_key="*.error")]) as app:
                options = {"queue": "celery-errors", "routing_key": "db.error"}
                await asyncio.to_thread(app.send_task, "exchanges.note", [2], **options)
            await place.ran("ours logs our-errors 2", "celery logs db.error 2")

    async def test_direct_exchanges(self, place: Place) -> None:
        async with place.our_worker("our-parcels"), place.queue() as client:
            await client.send_task("exchanges.note", [1], exchange="post", routing_key="parcel")
            await place.ran("ours post our-parcels 1", "celery post parcel 1")
            with place.celery_app() as app:
                await asyncio.to_thread(
                    app.send_task, "exchanges.note", [2], exchange="post", routing_key="parcel", queue="celery"
                )
            await place.ran("ours post our-parcels 2", "celery post parcel 2")

    async def test_a_task_with_an_exchange_of_its_own(self, place: Place) -> None:
        async with place.our_worker("our-errors"), place.queue() as client:

            @client.task(name="exchanges.note", exchange="logs", routing_key="db.error")
            async def note(value: object) -> None: ...

            await note.delay(1)
            await place.ran("ours logs our-errors 1", "celery logs db.error 1")

    async def test_copies_can_be_told_apart(self, place: Place) -> None:
        settings = Settings()
        settings.update({"broker_transport_options": place.options})
        async with place.queue() as client, RedisBroker.from_url(place.url, settings) as broker:
            private = [Binding("copies", "topic", "#", f"copy-{n}") for n in range(2)]
            await broker.bind(private)
            await client.send_task("exchanges.note", [1], exchange="copies", routing_key="a.b")
            (one, other) = (await broker.claim(["copy-0", "copy-1"], limit=5)).deliveries
            first, second = decode(one.body).properties, decode(other.body).properties
            assert first["delivery_tag"] != second["delivery_tag"]
            assert first["delivery_info"] == second["delivery_info"] == {"exchange": "copies", "routing_key": "a.b"}


class TestBroadcasts:
    async def test_our_sender_reaches_both(self, place: Place) -> None:
        async with place.our_worker("news"), place.queue(task_queues=DECLARED) as client:
            await client.send_task("exchanges.note", [1], queue="news")
            await place.ran("ours news bcast.ours@test 1", "celery news celery 1")

    async def test_our_sender_that_has_declared_nothing(self, place: Place) -> None:
        async with place.our_worker("news"), place.queue() as client:
            await client.send_task("exchanges.note", [2], exchange="news", routing_key="celery")
            await place.ran("ours news bcast.ours@test 2", "celery news celery 2")

    async def test_celerys_sender_reaches_both(self, place: Place) -> None:
        async with place.our_worker("news"):
            with place.celery_app(task_queues=[kombu.common.Broadcast("news")]) as app:

                def send() -> None:
                    with app.producer_pool.acquire() as producer:
                        kombu.Exchange("news", type="fanout")(producer.channel).declare()
                        app.send_task("exchanges.note", [3], queue="news", producer=producer)

                await asyncio.to_thread(send)
            await place.ran("ours news bcast.ours@test 3", "celery news celery 3")

    async def test_celerys_sender_that_has_declared_nothing_reaches_ours(self, place: Place) -> None:
        """It puts the message into lists, which no Celery worker reads."""
        async with place.our_worker("news"):
            # A program of its own: within one process kombu's connections know each other's exchanges.
            command = [sys.executable, "exchanges_celery.py", "news", "4"]
            environment = {"INTEROP_REDIS": place.url, "INTEROP_PREFIX": place.prefix}
            with running(*command, env=environment, cwd=HERE) as program:
                assert await asyncio.to_thread(program.wait) == 0, program.output
            await place.ran("ours news bcast.ours@test 4")

    async def test_a_queue_of_another_name_than_its_fanout_exchange(self, place: Place) -> None:
        """Both sides have the same configuration, and name the queue: in a route, in a call, and for the worker."""
        configuration = {
            "broker_url": place.url,
            "broker_transport_options": place.options,
            "task_queues": (
                kombu.Queue("celery"),
                kombu.Queue("b", kombu.Exchange("f", type="fanout"), routing_key="loud"),
            ),
            "task_routes": {"exchanges.fan": {"queue": "b"}},
        }
        client = TaskQueue.from_celery(configuration)
        async with place.our_worker_of(TaskQueue.from_celery(configuration), "b"), client:
            await client.send_task("exchanges.fan", [1])
            await place.ran("ours f bcast.ours@test 1", "celery f loud 1")
            await client.send_task("exchanges.note", [2], queue="b")
            await place.ran("ours f bcast.ours@test 2", "celery f loud 2")
            settings = {name: value for name, value in configuration.items() if name.startswith("task_")}
            with place.celery_app(**settings) as app:

                def send() -> None:
                    with app.producer_pool.acquire() as producer:
                        kombu.Exchange("f", type="fanout")(producer.channel).declare()
                        app.send_task("exchanges.fan", [3], producer=producer)

                await asyncio.to_thread(send)
            await place.ran("ours f bcast.ours@test 3", "celery f loud 3")

    async def test_celery_counts_as_a_listener(self, place: Place) -> None:
        async with place.queue() as client:
            ping = {"method": "unknown", "arguments": {}, "destination": ["nobody@nowhere"]}
            properties = {"delivery_tag": "1", "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""}}
            envelope = {"body": json.dumps(ping), "content-type": "application/json", "content-encoding": "utf-8"}
            body = json.dumps({**envelope, "headers": {}, "properties": properties}).encode()
            assert await client.broker.bus().publish([message.Broadcast("celery.pidbox", "", body)]) == [1]


@pytest.mark.parametrize("prefix", ["", "team:"])
async def test_bindings_are_the_same_keys_as_kombus(redis_server: RedisServer, redis_url: str, prefix: str) -> None:
    """Everything but the moments, and a table of ours that kombu does not know."""
    bound = [
        Binding("celery", "direct", "celery", "celery"),
        Binding("tex", "topic", "a.#", "tq"),
        Binding("tex", "topic", "*.b-c.[x]", "tq2"),
        Binding("tex", "topic", "", "tq3"),
        Binding("replies", "direct", "oid", "oid.replies", 10),
        Binding("long", "topic", "a", "long", 7200),
    ]
    settings = Settings()
    settings.update({"broker_transport_options": {"global_keyprefix": prefix}})
    async with RedisBroker.from_url(redis_url, settings) as broker:
        await broker.bind(bound)
        ours = tables(redis_url)
        assert {
            each.queue
            for exchange in ("celery", "tex", "replies", "long")
            for each in await broker.bindings(exchange)
        }
        with redis.Redis.from_url(redis_url) as server:
            server.flushdb()
        await asyncio.to_thread(declare, redis_url, prefix, bound)
        assert tables(redis_url) == ours
        for exchange in ("celery", "tex", "replies", "long"):
            found = {
                (each.exchange, each.kind, each.routing_key, each.queue) for each in await broker.bindings(exchange)
            }
            assert found == {(b.exchange, b.kind, b.routing_key, b.queue) for b in bound if b.exchange == exchange}


def declare(url: str, prefix: str, bindings: list[Binding]) -> None:
    with (
        kombu.Connection(url, transport_options={"global_keyprefix": prefix}) as connection,
        connection.channel() as channel,
    ):
        for b in bindings:
            exchange = kombu.Exchange(b.exchange, type=b.kind)
            kombu.Queue(b.queue, exchange, routing_key=b.routing_key, expires=b.expires)(channel).declare()


def tables(url: str) -> dict[str, object]:
    with redis.Redis.from_url(url, decode_responses=True) as server:
        keys = [key for key in server.keys("*") if "binding" in key]
        seconds, _ = server.time()
        return {
            key: {
                name: round(score / 1000 - seconds, -2) for name, score in server.zrange(key, 0, -1, withscores=True)
            }
            if server.type(key) == "zset"
            else server.smembers(key)
            for key in keys
        }
