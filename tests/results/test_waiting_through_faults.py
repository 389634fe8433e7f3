"""Waiters of results while the connection to Redis is killed, cut, frozen, or goes silent."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import redis
from faults.proxy import Proxy

from aioretryq.backends.consumer import ResultConsumer
from aioretryq.backends.redis import RedisBackend
from aioretryq.config import Settings
from aioretryq.errors import BackendError
from aioretryq.message import StoredResult
from queues import soon, until
from redis_server import RedisServer

WAITERS = 100
ANSWER_WITHIN = 0.5


def stored(task_id):
    return StoredResult(task_id, "SUCCESS", b'{"status": "SUCCESS", "id": "%s"}' % task_id.encode())


class Client:
    """A process that waits for results through `url`; what it waits for is stored past it, by `elsewhere`."""

    def __init__(self, url, elsewhere, poll_interval):
        conf = Settings(redis_socket_timeout=ANSWER_WITHIN, broker_connection_timeout=ANSWER_WITHIN)
        self.backend = RedisBackend.from_url(url, conf)
        self.elsewhere = RedisBackend.from_url(elsewhere, Settings())
        self.consumer = ResultConsumer(self.backend, poll_interval=poll_interval)

    async def first(self, task_id):
        with self.consumer.watch(task_id) as watch:
            return await watch.next()

    async def wait_for(self, task_ids):
        waiting = [asyncio.create_task(self.first(task_id)) for task_id in task_ids]
        await until(lambda: self.consumer.subscribed == len(task_ids))
        return waiting


@asynccontextmanager
async def client(url, elsewhere, poll_interval=3600.0):
    made = Client(url, elsewhere, poll_interval)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(made.backend)
        await stack.enter_async_context(made.elsewhere)
        running = asyncio.create_task(made.consumer.run())
        try:
            yield made
        finally:
            running.cancel()
            await asyncio.wait([running])


@pytest.fixture
def server():
    server = RedisServer(durable=True)
    server.start()
    yield server
    server.close()


@pytest.fixture
def proxy(server):
    proxy = Proxy(server.port)
    proxy.start()
    yield proxy
    proxy.close()


@pytest.fixture
def admin(redis_url):
    with redis.Redis.from_url(redis_url) as admin:
        yield admin


IDS = [str(n) for n in range(WAITERS)]


async def results_within(waiting, seconds):
    started = time.monotonic()
    await soon(asyncio.gather(*waiting))
    assert time.monotonic() - started < seconds


async def test_a_killed_server(server, caplog):
    async with client(server.url, server.url) as there:
        waiting = await there.wait_for(IDS)
        server.kill()
        await asyncio.wait(waiting, timeout=1.5)
        server.start()
        await there.elsewhere.store([stored(task_id) for task_id in IDS])
        await results_within(waiting, 2)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 2
    assert "is gone" in told[0]
    assert "is back after" in told[1]


async def test_cut_connections_and_results_that_come_meanwhile(server, proxy):
    async with client(f"redis://127.0.0.1:{proxy.port}/0", server.url) as there:
        waiting = await there.wait_for(IDS)
        await asyncio.to_thread(proxy.cut)
        await there.elsewhere.store([stored(task_id) for task_id in IDS])
        await asyncio.wait(waiting, timeout=1.5)
        await asyncio.to_thread(proxy.heal)
        await results_within(waiting, 2)


@pytest.mark.parametrize("trouble", ["cut", "black_hole"])
async def test_ten_thousand_that_are_awaited_together(server, proxy, trouble):
    """Half of the results come before, the others while nothing is heard."""
    ids = [f"task-{n}" for n in range(10_000)]

    async def wait_for_all():
        with there.consumer.watch_many(ids) as watch:
            while some := await watch.next():
                seen.extend(place for place, _, _ in some)

    seen = []
    async with client(f"redis://127.0.0.1:{proxy.port}/0", server.url) as there:
        waiting = asyncio.create_task(wait_for_all())
        await until(lambda: there.consumer.subscribed == len(ids))
        await there.elsewhere.store([stored(task_id) for task_id in ids[::2]])
        await until(lambda: len(seen) > 1000)
        await asyncio.to_thread(getattr(proxy, trouble))
        await there.elsewhere.store([stored(task_id) for task_id in ids[1::2]])
        await asyncio.to_thread(proxy.heal)
        await results_within([waiting], 15)
        assert sorted(seen) == list(range(10_000))
        await until(lambda: there.consumer.watching == there.consumer.subscribed == 0)


async def test_a_frozen_server(server):
    async with client(server.url, server.url) as there:
        waiting = await there.wait_for(IDS)
        storing = asyncio.create_task(there.elsewhere.store([stored(task_id) for task_id in IDS]))
        server.freeze()
        await asyncio.wait([storing], timeout=4 * ANSWER_WITHIN)
        server.thaw()
        await asyncio.gather(storing, return_exceptions=True)
        await there.elsewhere.store([stored(task_id) for task_id in IDS])
        await results_within(waiting, 2)


async def test_a_connection_that_goes_silent_is_noticed_without_any_fetch(server, proxy):
    async with client(f"redis://127.0.0.1:{proxy.port}/0", server.url) as there:
        waiting = await there.wait_for(IDS)
        await asyncio.to_thread(proxy.black_hole)
        await asyncio.to_thread(proxy.heal)  # new connections are fine, those that exist stay silent
        await there.elsewhere.store([stored(task_id) for task_id in IDS])
        await results_within(waiting, 2 * ANSWER_WITHIN + 2)


async def test_a_network_that_is_silent_for_a_while(server, proxy):
    async with client(f"redis://127.0.0.1:{proxy.port}/0", server.url) as there:
        waiting = await there.wait_for(IDS)
        await asyncio.to_thread(proxy.black_hole)
        await there.elsewhere.store([stored(task_id) for task_id in IDS])
        await asyncio.wait(waiting, timeout=4 * ANSWER_WITHIN)
        await asyncio.to_thread(proxy.heal)
        await results_within(waiting, 2 * ANSWER_WITHIN + 2)


async def test_twenty_reconnects_leave_as_many_tasks_as_before(redis_url, admin):
    async with client(redis_url, redis_url) as there:
        waiting = await there.wait_for(IDS)
        tasks = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}, len(asyncio.all_tasks())
        for n in range(20):
            before = listeners(admin)
            admin.client_kill_filter(_type="pubsub")
            async with asyncio.timeout(20):
                while len(after := listeners(admin)) != 1 or after == before:
                    await asyncio.sleep(0.005)
            await there.elsewhere.store([stored(IDS[n])])
            await soon(waiting[n])
        await until(lambda: there.consumer.subscribed == WAITERS - 20)
        for task in waiting[:20]:
            assert task.done()
        assert len(asyncio.all_tasks()) == tasks[1] - 20
        assert {task.get_coro().__qualname__ for task in asyncio.all_tasks()} == tasks[0]
        assert len(listeners(admin)) == 1
        await there.elsewhere.store([stored(task_id) for task_id in IDS])
        await soon(asyncio.gather(*waiting))


def block(seconds):
    """As a task does that computes for long, or waits without `await`."""
    time.sleep(seconds)


def listeners(admin):
    return [found["id"] for found in admin.client_list() if found["name"] == "aioretryq:results"]


async def test_a_lost_listener_that_nobody_needs_is_no_outage(redis_url, admin, caplog):
    async with client(redis_url, redis_url) as there:
        await there.elsewhere.store([stored("a")])
        await soon(there.first("a"))
        admin.client_kill_filter(_type="pubsub")
        await there.elsewhere.store([stored("b")])
        await soon(there.first("b"))
    assert not caplog.records


async def test_a_late_event_loop_is_no_lost_connection(redis_url, admin, caplog):
    async with client(redis_url, redis_url) as there:
        waiting = await there.wait_for(["a"])
        before = listeners(admin)
        for _ in range(3):
            block(2.5 * ANSWER_WITHIN)
            await asyncio.wait(waiting, timeout=0.1)
        assert listeners(admin) == before
        await there.elsewhere.store([stored("a")])
        await soon(asyncio.gather(*waiting))
    assert not caplog.records


class TestRefusals:
    @pytest.fixture
    def limited_url(self, redis_url, redis_server, admin):
        """Of a user who may not read and hear everything."""
        may_read = ["%R~celery-task-meta-ok*", "%R~celery-task-meta-deaf*"]
        may_hear = ["&celery-task-meta-ok*", "&celery-task-meta-blind*"]
        admin.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">secret", "+@all", *may_read, *may_hear)
        yield redis_url.replace("//", "//limited:secret@")
        admin.execute_command("ACL", "DELUSER", "limited")

    async def test_an_id_that_may_not_be_read_fails_its_own_waiters_only(self, redis_url, limited_url):
        await self.check(redis_url, limited_url, "blind")

    async def test_an_id_that_may_not_be_heard_fails_its_own_waiters_only(self, redis_url, limited_url):
        await self.check(redis_url, limited_url, "deaf")

    async def check(self, redis_url, limited_url, bad):
        async with client(limited_url, redis_url) as there:
            fine = [asyncio.create_task(there.first(f"ok{n}")) for n in range(700)]
            refused = [asyncio.create_task(there.first(f"{bad}{n % 3}")) for n in range(6)]
            for outcome in await soon(asyncio.gather(*refused, return_exceptions=True)):
                assert isinstance(outcome, BackendError)
                assert "ACL" in str(outcome)
                assert isinstance(outcome.__cause__, redis.ResponseError)
            await until(lambda: there.consumer.subscribed == 700)
            await there.elsewhere.store([stored(f"ok{n}") for n in range(700)])
            await soon(asyncio.gather(*fine))
            await until(lambda: there.consumer.watching == there.consumer.subscribed == 0)
