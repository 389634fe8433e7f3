"""Going back to Celery: what our workers have parked runs on a Celery worker that comes after them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import celery
import pytest
import redis

from programs import Program, aioretryq_worker, running
from redis_server import environment

HERE = Path(__file__).parent
SCHEDULE = "aioretryq.schedule.celery"


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@contextmanager
def ours(url: str, *arguments: str, lease: str = "30") -> Iterator[Program]:
    env = {"INTEROP_REDIS": url, "AIORETRYQ_LEASE": lease}
    with aioretryq_worker("our_side:queue", *arguments, env=env, cwd=HERE) as worker:
        yield worker


@contextmanager
def celerys(url: str) -> Iterator[Program]:
    command = [sys.executable, "-m", "celery", "-A", "celery_side", "worker", "-P", "solo", "-l", "INFO"]
    with running(*command, env={"INTEROP_REDIS": url}, cwd=HERE) as worker:
        worker.wait_for(" ready.", timeout=60)
        yield worker


def until(happened: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < ends
        time.sleep(0.01)


def until_parked(server: redis.Redis, count: int) -> None:
    until(lambda: (server.zcard(SCHEDULE), server.hlen("unacked")) == (count, 0))


def unpark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aioretryq", "unpark", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_last_worker_hands_over_and_after_a_crash_the_command_does(redis_url: str, server: redis.Redis) -> None:
    with celery.Celery(broker=redis_url, backend=redis_url, set_as_current=False) as app:
        sent = [app.send_task("interop.add", (1, 2), countdown=8)]
        due = time.time() + 8
        with ours(redis_url) as worker:
            until_parked(server, 1)
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
            assert "1 parked messages are back in queue celery" in worker.output
        assert (server.zcard(SCHEDULE), server.llen("celery"), server.exists("aioretryq.workers")) == (0, 1, 0)

        sent += [
            app.send_task("interop.add", (2, 2), countdown=8),
            app.send_task("interop.add", (3, 2), countdown=1000),
        ]
        with ours(redis_url, lease="1") as worker:  # parks the first again: it is not due
            until_parked(server, 3)
            worker.signal(signal.SIGKILL)
            worker.wait()
        server.delete("aioretryq.workers")  # as when the lease has ended
        done = unpark("--url", redis_url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "       3 messages are back in queue celery\n", "")
        assert (server.zcard(SCHEDULE), server.llen("celery")) == (0, 3)

        with celerys(redis_url) as worker:
            assert [result.get(timeout=30) for result in sent[:2]] == [3, 4]
            assert time.time() >= due
            worker.wait_for("succeeded", count=2)
            until(lambda: (server.llen("celery"), server.hlen("unacked")) == (0, 1))  # the third: Celery holds it
            assert sum("succeeded" in line for line in worker.lines) == 2


def test_while_another_of_ours_lives_nothing_is_moved(redis_url: str, server: redis.Redis) -> None:
    with celery.Celery(broker=redis_url, set_as_current=False) as app:
        app.send_task("interop.add", (1, 2), countdown=1000)
    with ours(redis_url, "-n", "same@host") as first, ours(redis_url, "-n", "same@host"):
        until_parked(server, 1)
        until(lambda: server.zcard("aioretryq.workers") == 2)
        first.signal(signal.SIGTERM)
        assert first.wait() == 0
        assert "parked messages" not in first.output
        assert (server.zcard(SCHEDULE), server.zcard("aioretryq.workers")) == (1, 1)
        done = unpark("--url", redis_url, "-Q", "celery, other")
        assert done.returncode == 0
        assert done.stdout == "       1 messages are back in queue celery\n"
        assert "Workers of aioretryq may be at work on celery" in done.stderr
        until_parked(server, 1)  # parked again


def test_three_processes_that_stop_together(redis_url: str, server: redis.Redis) -> None:
    with celery.Celery(broker=redis_url, set_as_current=False) as app:
        for n in range(5):
            app.send_task("interop.add", (n, n), countdown=1000)
    with ours(redis_url, "--processes", "3") as worker:
        until_parked(server, 5)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert worker.output.count("5 parked messages are back in queue celery") == 1
    assert (server.zcard(SCHEDULE), server.llen("celery")) == (0, 5)
