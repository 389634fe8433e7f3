"""Long runs, for `make soak`: workers that are killed again and again, and a producer that never waits."""

from __future__ import annotations

import asyncio
import random
import resource
import signal
from pathlib import Path

import pytest
from test_stop import executed, queued

from aioretryq import TaskQueue, Worker
from programs import aioretryq_worker

pytestmark = pytest.mark.soak

HERE = Path(__file__).parent
TASKS = 3000
CALLS = 1_000_000
AT_ONCE = 100


@pytest.mark.parametrize("broker", ["sqlite", "redis"])
@pytest.mark.timeout(600)
async def test_killed_workers_lose_nothing(broker: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    url = f"sqlite:///{tmp_path / 'queue.sqlite3'}" if broker == "sqlite" else request.getfixturevalue("redis_url")
    environment = {"AIORETRYQ_URL": url, "COUNTING_TRACE": str(trace), "AIORETRYQ_LEASE": "2"}
    chance = random.Random(1)
    async with TaskQueue(url) as queue:
        results = [await queue.send_task("counting.work", [number, 0.02]) for number in range(TASKS)]
        kills = 0
        while len(executed(trace)) < TASKS * 0.9:
            before = len(executed(trace))
            with aioretryq_worker("counting:queue", "-c", "40", env=environment, cwd=HERE) as worker:
                worker.wait_for("succeeded", count=chance.randint(1, min(200, TASKS - before)), timeout=120)
                worker.signal(signal.SIGKILL)
                worker.wait()
            kills += 1
        with aioretryq_worker("counting:queue", env=environment, cwd=HERE) as worker:
            assert [await result.get(timeout=120) for result in results] == list(range(TASKS))
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
    done = executed(trace)
    assert len(done) == TASKS
    assert await queued(url) == 0
    # Again runs only what was running, or not yet acknowledged, when its worker was killed.
    assert sum(done.values()) - TASKS <= kills * 40


@pytest.mark.parametrize("ignored", [True, False], ids=["results ignored", "results stored"])
@pytest.mark.timeout(1800)
async def test_a_million_calls_without_a_waiter_leave_nothing_behind(redis_url: str, ignored: bool) -> None:
    queue = TaskQueue(redis_url, task_ignore_result=ignored, result_expires=20)

    @queue.task(name="soak.nothing")
    async def nothing() -> None:
        return None

    async with queue, Worker(queue).running():
        sizes = []
        for _ in range(10):
            for _ in range(CALLS // 10 // AT_ONCE):
                await asyncio.gather(*(nothing.delay() for _ in range(AT_ONCE)))
            sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        assert queue.connections.consumer.subscribed == queue.connections.consumer.watching == 0
    assert sizes[-1] < sizes[2] * 1.1, f"peak memory grows: {sizes}"
