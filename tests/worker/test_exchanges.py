"""Tasks that travel through topic and direct exchanges, and broadcasts, on every broker."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import redis

from aioretryq import Broadcast, PublishError, Queue, TaskQueue
from aioretryq import message as messages
from aioretryq.worker import Worker
from queues import PATIENCE, soon, until

DECLARED = [
    "celery",
    Queue("errors", "logs", "topic", "*.error"),
    Queue("everything", "logs", "topic", "#"),
    Queue("parcels", "post", "direct", "parcel"),
    Broadcast("news"),
]


class Fleet:
    """Workers and clients of one place; each worker has a queue object of its own."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack
        self.ran: list[tuple[str, str, object]] = []
        """(worker, queue, value) of each task that has run."""

    async def client(self, **settings) -> TaskQueue:
        return await self._stack.enter_async_context(TaskQueue(self._url, **settings))

    @asynccontextmanager
    async def worker(self, name: str, *queues: str, **options):
        queue = TaskQueue(self._url, task_queues=DECLARED, **options)
        failures: set[object] = set()

        @queue.task(name="note", bind=True, autoretry_for=(OSError,), retry_backoff=0.01)
        async def note(self, value: object, fails: bool = False) -> str:
            if fails and name not in failures:
                failures.add(name)
                raise OSError("not yet")
            ran.append((name, self.request.delivery_info["routing_key"], value))
            return name

        ran = self.ran
        async with Worker(queue, queues=queues or None, name=f"{name}@test").running() as worker:
            yield worker

    async def settled(self, count: int) -> list[tuple[str, str, object]]:
        async with asyncio.timeout(PATIENCE):
            while len(self.ran) < count:
                await asyncio.sleep(0.002)
        return sorted(self.ran, key=str)


@pytest.fixture
async def fleet(url):
    async with AsyncExitStack() as stack:
        yield Fleet(url, stack)


class TestTopics:
    async def test_each_queue_that_fits_gets_a_copy(self, fleet):
        client = await fleet.client(task_queues=DECLARED)
        async with fleet.worker("w", "errors", "everything"):
            for key in ("db.error", "db.info", "a.b.error"):
                await client.send_task("note", [key], exchange="logs", routing_key=key)
            assert await fleet.settled(4) == [
                ("w", "errors", "db.error"),
                ("w", "everything", "a.b.error"),
                ("w", "everything", "db.error"),
                ("w", "everything", "db.info"),
            ]

    async def test_a_sender_that_declares_nothing(self, fleet):
        client = await fleet.client()
        async with fleet.worker("w", "errors"):
            await client.send_task("note", [1], exchange="logs", routing_key="db.error")
            assert await fleet.settled(1) == [("w", "errors", 1)]

    async def test_a_sender_that_declares_them_needs_no_worker_yet(self, fleet):
        client = await fleet.client(task_queues=DECLARED)
        await client.send_task("note", [1], exchange="post", routing_key="parcel")
        async with fleet.worker("w", "parcels"):
            assert await fleet.settled(1) == [("w", "parcels", 1)]

    async def test_nothing_is_bound(self, fleet):
        client = await fleet.client(task_queues=DECLARED)
        with pytest.raises(PublishError, match=r"bound to exchange 'post'.*'letter'") as raised:
            await client.send_task("note", [1], exchange="post", routing_key="letter")
        assert not raised.value.maybe_sent
        with pytest.raises(PublishError, match="task_queues"):
            await client.send_task("note", [1], exchange="unknown", routing_key="a")

    async def test_a_message_that_cannot_be_sent_does_not_take_others_along(self, fleet):
        client = await fleet.client(task_queues=DECLARED)
        sending = [
            client.send_task("note", [n], exchange="post", routing_key="parcel" if n % 2 else "letter")
            for n in range(10)
        ]
        sent = await asyncio.gather(*sending, return_exceptions=True)
        assert [isinstance(each, PublishError) for each in sent] == [True, False] * 5
        assert await client.broker.depth(["parcels"]) == {"parcels": 5}

    async def test_routes_and_names_of_queues_lead_there_too(self, fleet):
        routes = {"note": {"exchange": "logs", "routing_key": "x.error"}}
        client = await fleet.client(task_queues=DECLARED, task_routes=routes)
        async with fleet.worker("w", "errors", "everything", "parcels"):
            await client.send_task("note", [1])
            await client.send_task("note", [2], queue="parcels")
            assert await fleet.settled(3) == [("w", "errors", 1), ("w", "everything", 1), ("w", "parcels", 2)]

    async def test_a_retry_stays_in_its_queue(self, fleet):
        client = await fleet.client(task_queues=DECLARED)
        async with fleet.worker("w", "errors", "everything"):
            await client.send_task("note", [1], {"fails": True}, exchange="logs", routing_key="x.info")
            assert await fleet.settled(1) == [("w", "everything", 1)]
            await client.send_task("note", [2], exchange="logs", routing_key="x.info")
            assert len(await fleet.settled(2)) == 2  # no other copy of the first

    async def test_what_follows_from_a_task_goes_through_exchanges(self, fleet):
        client = await fleet.client(task_queues=DECLARED)
        link = {
            "task": "note",
            "args": [2],
            "kwargs": {},
            "subtask_type": None,
            "immutable": True,
            "options": {"exchange": "logs", "routing_key": "db.error"},
        }
        async with fleet.worker("w", "celery", "errors", "everything"):
            await client.send_task("note", [1], link=link)
            assert await fleet.settled(3) == [("w", "celery", 1), ("w", "errors", 2), ("w", "everything", 2)]

    async def test_what_follows_and_cannot_be_sent_is_logged(self, fleet, caplog):
        client = await fleet.client(task_queues=DECLARED)
        link = {
            "task": "note",
            "args": [2],
            "kwargs": {},
            "subtask_type": None,
            "immutable": True,
            "options": {"exchange": "nowhere", "routing_key": "a"},
        }
        async with fleet.worker("w", "celery"):
            result = await client.send_task("note", [1], link=link)
            assert await soon(result.get()) == "w"
            await until(lambda: "No queue is bound to exchange 'nowhere'" in caplog.text)


class TestBroadcasts:
    async def test_every_worker_runs_it(self, fleet):
        client = await fleet.client(task_queues=DECLARED)
        async with (
            fleet.worker("one", "news"),
            fleet.worker("two", "news", "celery"),
            fleet.worker("three", "celery"),
        ):
            await client.send_task("note", [1], queue="news")
            assert await fleet.settled(2) == [("one", "bcast.one@test", 1), ("two", "bcast.two@test", 1)]
            await client.send_task("note", [2], exchange="news")
            assert len(await fleet.settled(4)) == 4

    async def test_without_names_a_worker_takes_all_that_is_declared(self, fleet):
        client = await fleet.client(task_queues=DECLARED)
        async with fleet.worker("w") as worker:
            assert worker.queues == ["celery", "errors", "everything", "parcels", "news"]
            await client.send_task("note", [1], queue="news")
            await client.send_task("note", [2])
            await client.send_task("note", [3], queue="parcels")
            assert len(await fleet.settled(3)) == 3

    @pytest.mark.parametrize("options", [{"exchange": "news", "exchange_type": "fanout"}, {"exchange": "news"}])
    async def test_a_sender_that_declares_nothing(self, fleet, options):
        """Celery's senders lose such a task unless they have declared the exchange."""
        client = await fleet.client()
        async with fleet.worker("one", "news"), fleet.worker("two", "news"):
            await client.send_task("note", [1], **options, routing_key="celery")
            assert [worker for worker, _, _ in await fleet.settled(2)] == ["one", "two"]

    async def test_a_retry_is_the_business_of_one_worker(self, fleet):
        client = await fleet.client(task_queues=DECLARED)
        async with fleet.worker("one", "news"), fleet.worker("two", "news"):
            await client.send_task("note", [1], {"fails": True}, queue="news")
            assert [worker for worker, _, _ in await fleet.settled(2)] == ["one", "two"]
            await client.send_task("note", [2], queue="news")
            assert len(await fleet.settled(4)) == 4

    async def test_nobody_listens(self, fleet, caplog):
        client = await fleet.client(task_queues=DECLARED)
        with caplog.at_level(logging.INFO, "aioretryq"):
            await client.send_task("note", [1], queue="news")
        assert "Nobody listens" in caplog.text

    async def test_a_worker_that_stops_leaves_nothing(self, fleet):
        client = await fleet.client(task_queues=DECLARED)
        async with fleet.worker("w", "news"):
            assert [b.queue for b in await client.broker.bindings("news")] == ["bcast.w@test"]
            await client.send_task("note", [1], queue="news", countdown=3600)
            async with asyncio.timeout(PATIENCE):
                while not (await client.broker.depth(["bcast.w@test"]))["bcast.w@test"]:
                    await asyncio.sleep(0.01)
        assert await client.broker.bindings("news") == []
        assert await client.broker.depth(["bcast.w@test"]) == {"bcast.w@test": 0}

    async def test_hostile_broadcasts(self, fleet, caplog):
        client = await fleet.client(task_queues=DECLARED)
        async with fleet.worker("w", "news"):
            bodies = [
                b"",
                b"\xff",
                b"{}",
                b"[]",
                b'{"properties": 5}',
                b'{"body": 1, "headers": [], "properties": {}}',
            ]
            await client.broker.bus().publish([messages.Broadcast("news", "x", body) for body in bodies])
            await client.send_task("note", [1], queue="news")
            assert await fleet.settled(1) == [("w", "bcast.w@test", 1)]
        assert "was broadcast on news" in caplog.text

    async def test_the_same_broadcast_twice_runs_once(self, fleet):
        """Its sender did not get the reply, and has tried again."""
        client = await fleet.client(task_queues=DECLARED)
        async with client.broker.bus().listen("news") as listener, fleet.worker("w", "news"):
            await client.send_task("note", [1], queue="news")
            (heard,) = await soon(listener.receive())
            await client.broker.bus().publish([heard, heard])
            await client.send_task("note", [2], queue="news")
            assert [value for _, _, value in await fleet.settled(2)] == [1, 2]


class TestOutages:
    @pytest.fixture
    def url(self, redis_url):
        return redis_url

    async def test_a_worker_listens_again_and_binds_again(self, fleet, url, monkeypatch):
        monkeypatch.setattr("aioretryq.worker.sources.BOUND_AGAIN", 0.05)
        client = await fleet.client()
        with redis.Redis.from_url(url) as server:
            async with fleet.worker("w", "news", "errors"):
                for n in range(3):
                    listening = server.pubsub_numpat()
                    server.client_kill_filter(_type="pubsub")
                    server.flushdb()
                    await until(lambda listening=listening: server.pubsub_numpat() == listening)
                    await until(lambda: server.exists("_kombu.binding.news", "_kombu.binding.logs") == 2)
                    await client.send_task("note", [n], exchange="news", routing_key="celery")
                    await client.send_task("note", [n], exchange="logs", routing_key="db.error")
                    assert len(await fleet.settled(2 * n + 2)) == 2 * n + 2
