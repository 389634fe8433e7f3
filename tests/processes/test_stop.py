"""Signals to a real worker process: what was published is executed or still queued, and exactly once."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from aioretryq import TaskQueue
from programs import aioretryq_worker

HERE = Path(__file__).parent
TASKS = 500


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'queue.sqlite3'}"
    found: str = request.getfixturevalue("redis_url")
    return found


async def publish(url: str, task: str = "counting.work", seconds: float = 0.02) -> None:
    async with TaskQueue(url) as queue:
        for start in range(0, TASKS, 100):
            for number in range(start, start + 100):
                await queue.send_task(task, [number, seconds])


async def queued(url: str) -> int:
    async with TaskQueue(url) as queue:
        return (await queue.broker.depth(["celery"]))["celery"]


def executed(trace: Path) -> Counter[int]:
    return Counter(int(line) for line in trace.read_text().split()) if trace.exists() else Counter()


def environment(url: str, trace: Path) -> dict[str, str]:
    return {"AIORETRYQ_URL": url, "COUNTING_TRACE": str(trace)}


# Ten rounds on each of two brokers: every time of 20.
@pytest.mark.parametrize("round_number", range(10))
async def test_term_during_500_tasks_loses_none_and_repeats_none(url: str, tmp_path: Path, round_number: int) -> None:
    trace = tmp_path / "trace"
    await publish(url)
    # Odd rounds give no grace: what runs is cancelled and goes back instead of being finished.
    grace = "0" if round_number % 2 else "20"
    arguments = ["counting:queue", "-c", "40", "--grace", grace]
    with aioretryq_worker(*arguments, env=environment(url, trace), cwd=HERE) as worker:
        worker.wait_for("succeeded", count=1 + 40 * round_number)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.output
    done = executed(trace)
    assert done, "the stop came before anything ran"
    assert max(done.values()) == 1, "a task ran twice"
    assert len(done) + await queued(url) == TASKS, worker.output[-3000:]


async def test_a_second_worker_finishes_what_the_first_gave_back(url: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    await publish(url)
    for last in (False, True):
        with aioretryq_worker("counting:queue", "--grace", "0", env=environment(url, trace), cwd=HERE) as worker:
            worker.wait_for("succeeded", count=TASKS - len(executed(trace)) if last else 50, timeout=60)
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0, worker.output
    assert executed(trace) == Counter(range(TASKS))
    assert await queued(url) == 0


async def test_threads_finish_within_the_grace(url: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    await publish(url, "counting.work_in_thread", 0.01)
    with aioretryq_worker("counting:queue", "-c", "40", env=environment(url, trace), cwd=HERE) as worker:
        worker.wait_for("succeeded", count=20)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.output
    done = executed(trace)
    assert max(done.values()) == 1
    assert len(done) + await queued(url) == TASKS


async def test_second_signal_ends_the_grace(url: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with TaskQueue(url) as queue:
        await queue.send_task("counting.work", [1, 600])
    with aioretryq_worker("counting:queue", "-l", "debug", env=environment(url, trace), cwd=HERE) as worker:
        worker.wait_for("] started")
        worker.signal(signal.SIGINT)
        worker.wait_for("have 25 s to finish")
        worker.signal(signal.SIGINT)
        assert worker.wait(10) == 0, worker.output
    assert await queued(url) == 1


async def test_a_thread_that_outlasts_the_grace_does_not_hold_the_exit(url: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with TaskQueue(url) as queue:
        await queue.send_task("counting.work_in_thread", [1, 600])
    arguments = ["counting:queue", "-l", "debug", "--grace", "0.2"]
    with aioretryq_worker(*arguments, env=environment(url, trace), cwd=HERE) as worker:
        worker.wait_for("] started")
        worker.signal(signal.SIGTERM)
        assert worker.wait(10) == 0, worker.output
        assert "plain functions still run" in worker.output
    assert await queued(url) == 1
