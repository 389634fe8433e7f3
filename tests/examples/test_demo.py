"""`make demo`: everything gets through, and it says so with its exit code; so it does when something is wrong."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from examples.demo import Order, place, problems
from examples.demo_server import FlakyServer
from examples.demo_tasks import queue
from examples.demo_worker import WorkerFailed, running_worker
from programs import ROOT, Program, running


def demo(*arguments: str) -> Program:
    with running(sys.executable, "-m", "examples.demo", *arguments, env={"COLUMNS": "200"}, cwd=ROOT) as program:
        program.wait(90)
        return program


def test_all_get_through():
    program = demo("--tasks", "40")

    assert program.process.returncode == 0, program.output
    assert re.search(r"succeeded\W+40 of 40", program.output), program.output
    assert re.search(r"failed\W+0\b", program.output)
    said = re.search(r"attempts\W+(\d+) \(the server counted (\d+): 40 ok, ", program.output)
    assert said is not None, program.output
    assert said[1] == said[2]
    assert int(said[1]) > 40  # it was not too easy
    assert re.search(rf"retries\W+{int(said[1]) - 40}\b", program.output)
    assert re.search(r"p50 \d+\.\d\d s, p95 \d+\.\d\d s", program.output)


def test_a_worker_that_cannot_start_is_shown_and_fails_the_demo():
    program = demo("--tasks", "5", "--url", "sqlite:////there/is/no/such/folder/demo.sqlite3")

    assert program.process.returncode == 1
    assert "The worker has ended, with exit code 1" in program.output
    assert "There is no folder" in program.output


def test_the_number_of_tasks_is_checked():
    program = demo("--tasks", "0")

    assert program.process.returncode == 2
    assert "at least 1" in program.output


async def test_the_worker_closes_its_session_when_it_stops(tmp_path: Path):
    queue.conf.broker_url = url_in(tmp_path)
    command = (sys.executable, "-X", "dev", "-m", "aioretryq", "worker", "examples.demo_tasks:queue")
    with running(*command, "--url", url_in(tmp_path), cwd=ROOT) as worker:
        worker.wait_for("is ready")
        async with FlakyServer().running() as server, queue:
            order = await place(server, 1)
        worker.signal(signal.SIGTERM)

        assert worker.wait() == 0, worker.output
    assert order.attempts == server.answers.total() > 0, order
    assert "Unclosed" not in worker.output
    assert "Traceback" not in worker.output


async def test_a_worker_that_dies_ends_the_waiting(tmp_path: Path):
    with pytest.raises(WorkerFailed, match=r"exit code -9(.|\n)*is ready"):
        await kill_and_wait_for_ever(tmp_path)


async def kill_and_wait_for_ever(folder: Path) -> None:
    async with running_worker("examples.demo_tasks:queue", "--url", url_in(folder)) as worker:
        os.kill(worker.pid, signal.SIGKILL)
        await worker.while_alive(asyncio.Event().wait())


async def test_a_worker_that_died_at_the_end_is_noticed(tmp_path: Path):
    with pytest.raises(WorkerFailed, match="exit code -9"):
        async with running_worker("examples.demo_tasks:queue", "--url", url_in(tmp_path)) as worker:
            os.kill(worker.pid, signal.SIGKILL)


def test_the_server_fails_the_same_way_in_every_run():
    first, second = (moods(FlakyServer(seed=3)) for _ in range(2))

    assert first == second
    assert set(first.values()) == {"ok", "busy", "dropped", "slow"}


async def test_the_server_says_when_to_come_again():
    async with FlakyServer().running() as server, aiohttp.ClientSession() as session:
        refused = next(n for n in range(100) if FlakyServer(server.seed).mood(str(n)) == "busy")
        async with session.post(f"{server.url}/orders/{refused}") as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")

    assert server.answers == Counter(busy=1)


@pytest.mark.parametrize(
    ("orders", "requests", "found"),
    [
        ([Order(0, 0.1, attempts=2), Order(1, 0.1, attempts=1)], 3, []),
        ([Order(0, 0.1, attempts=2)], 3, ["The tasks say 2 attempts, the server 3."]),
        ([Order(0, 0.1, attempts=1), Order(1, 0.1, error="lost")], 9, ["Order 1 failed: lost"]),
    ],
    ids=["fine", "uncounted attempts", "failed task"],
)
def test_problems(orders, requests, found):
    server = FlakyServer()
    server.answers["ok"] = requests

    assert problems(orders, server) == found


def moods(server: FlakyServer) -> dict[tuple[int, int], str]:
    return {(order, attempt): server.mood(str(order)) for order in range(20) for attempt in range(3)}


def url_in(folder: Path) -> str:
    return f"sqlite:///{folder}/demo.sqlite3"
