"""Leases: renewed from a thread, lost when they have to be, and fenced; on each broker."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import pytest

from aioretryq import BrokerUnavailable, TaskQueue, Worker
from queues import soon, until

LEASE = 1.0


@pytest.fixture
async def queue(url):
    async with TaskQueue(url, lease=LEASE) as queue:
        yield queue


async def watch_for_others(url, seconds):
    """Somebody who looks for messages of the dead, as other workers do; how many it has put back."""
    async with TaskQueue(url, lease=LEASE) as other:
        end, found = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            found += await other.broker.recover()
            await asyncio.sleep(LEASE / 5)
    return found


async def test_a_task_that_blocks_the_loop_keeps_all_leases(queue, url, caplog):
    """Twice the lease, while another process looks for messages of the dead."""
    runs, release = [], asyncio.Event()

    @queue.task
    async def blocker():
        runs.append("blocker")
        time.sleep(2 * LEASE)
        return "blocked"

    @queue.task
    async def neighbour():
        runs.append("neighbour")
        await release.wait()
        return "fine"

    found = []
    looking = threading.Thread(target=lambda: found.append(asyncio.run(watch_for_others(url, 3 * LEASE))))
    async with Worker(queue).running():
        second = await neighbour.delay()
        await until(lambda: runs == ["neighbour"])
        looking.start()
        first = await blocker.delay()
        assert await soon(first.get()) == "blocked"
        await asyncio.to_thread(looking.join)
        release.set()
        assert await soon(second.get()) == "fine"
    assert found == [0]
    assert runs == ["neighbour", "blocker"]
    (line,) = [record.getMessage() for record in caplog.records if "has been blocked for" in record.getMessage()]
    assert f"by task {blocker.name}[{first.id}] at {__file__}" in line
    assert "in blocker: time.sleep(2 * LEASE)" in line
    assert "The event loop is free again" in caplog.text


async def test_past_the_limit_the_leases_run_out_and_another_worker_takes_over(url, caplog):
    """What blocks for too long is taken for dead, on purpose; what it does afterwards changes nothing."""
    runs = []
    release = threading.Event()

    def define(queue, name):
        @queue.task(name="work")
        async def work():
            runs.append(name)
            if name == "blocked":
                release.wait(30)
            return name

    def serve_blocked():
        async def serve():
            queue = TaskQueue(url, lease=LEASE, worker_blocked_limit=0.5)
            define(queue, "blocked")
            worker = Worker(queue, grace=0)
            workers.append((worker, asyncio.get_running_loop()))
            await worker.run()

        asyncio.run(serve())

    workers: list = []
    thread = threading.Thread(target=serve_blocked)
    thread.start()
    try:
        async with TaskQueue(url, lease=LEASE) as queue:
            define(queue, "other")
            result = await queue.send_task("work")
            await until(lambda: runs == ["blocked"])
            async with Worker(queue).running():
                assert await soon(result.get()) == "other"
                release.set()
                worker, loop = workers[0]
                await until(lambda: "LEASE_LOST" in caplog.text)
                loop.call_soon_threadsafe(worker.stop)
                await asyncio.to_thread(thread.join)
            assert await result.get() == "other"
            assert await queue.broker.depth(["celery"]) == {"celery": 0}
    finally:
        release.set()
        thread.join()
    assert runs == ["blocked", "other"]
    assert "worker_blocked_limit" in caplog.text
    assert "LEASE_LOST" in caplog.text


class CutOff:
    """The connection of the thread that renews leases, while the network is gone for it alone."""

    def __init__(self, twin):
        self.twin = twin
        self.healed = False

    async def __aenter__(self):
        if not self.healed:
            raise BrokerUnavailable("cut off")
        await self.twin.__aenter__()
        return self

    async def __aexit__(self, *exc_info):
        await self.twin.__aexit__(*exc_info)

    def __getattr__(self, name):
        return getattr(self.twin, name)


class Two:
    """A worker that is cut off in the middle of a task, and one that takes the task over."""

    def __init__(self, url, monkeypatch):
        self.runs = []
        self.ends = {"late": asyncio.Event(), "heir": asyncio.Event()}
        self.told = []
        self.queues = {name: TaskQueue(url, lease=LEASE) for name in self.ends}
        self.monkeypatch = monkeypatch

    def define(self, name, outcome):
        @self.queues[name].task(name="work", bind=True, max_retries=5, default_retry_delay=0, dead_letter=True)
        async def work(task):
            self.runs.append((name, task.request.deliveries))
            try:
                await self.ends[name].wait()
            except asyncio.CancelledError as error:
                self.told.append((error.args, task.request.cancel_reason))
                raise
            if name == "heir":
                return "of the heir"
            if outcome == "retry":
                raise task.retry()
            if outcome == "failure":
                raise ValueError("of the late one")
            return "of the late one"

    @asynccontextmanager
    async def at_work(self, outcome):
        for name in self.queues:
            self.define(name, outcome)
        async with self.queues["late"] as late, self.queues["heir"] as heir:
            cut_off = self.connection = CutOff(late.broker.twin())
            self.monkeypatch.setattr(late.broker, "twin", lambda: cut_off)
            self.result = await late.send_task("work")
            async with Worker(late, concurrency=1, grace=1).running():
                await until(lambda: self.runs == [("late", 1)])
                async with Worker(heir).running():
                    await until(lambda: self.runs == [("late", 1), ("heir", 2)])
                    yield late


@pytest.mark.parametrize("outcome", ["value", "retry", "failure"])
async def test_who_comes_back_too_late_changes_nothing(url, outcome, monkeypatch, caplog):
    two = Two(url, monkeypatch)
    async with two.at_work(outcome) as queue:
        two.ends["late"].set()
        await until(lambda: "nothing of this run was stored" in caplog.text)
        assert await two.result.status() == "PENDING"
        two.ends["heir"].set()
        assert await soon(two.result.get()) == "of the heir"
        assert await queue.broker.depth(["celery"]) == {"celery": 0}
        assert await queue.broker.dead_count() == 0
    assert "LEASE_LOST" in caplog.text
    assert len(two.runs) == 2


async def test_a_task_is_told_that_it_has_lost_its_lease(url, monkeypatch, caplog):
    two = Two(url, monkeypatch)
    async with two.at_work("value"):
        two.connection.healed = True
        await until(lambda: two.told == [(("LEASE_LOST",), "LEASE_LOST")])
        two.ends["heir"].set()
        assert await soon(two.result.get()) == "of the heir"
    assert "lost its lease (LEASE_LOST)" in caplog.text
    assert len(two.runs) == 2
