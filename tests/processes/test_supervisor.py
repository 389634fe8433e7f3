"""`--processes`: crashed workers are started again, all stop together, and none outlives its supervisor."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from aioretryq import TaskQueue
from aioretryq.retry import RetryPolicy
from aioretryq.worker.supervisor import FAILURES, LAST_SECONDS, RESTART_POLICY, STEADY, Restarts
from programs import Program, running
from queues import until
from redis_server import RedisServer

HERE = Path(__file__).parent
TASKS = 300
LEASE = "2"


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'queue.sqlite3'}"
    found: str = request.getfixturevalue("redis_url")
    return found


@contextmanager
def worker(*arguments: str, cwd: Path = HERE, env: Mapping[str, str] | None = None) -> Iterator[Program]:
    with running(sys.executable, "-m", "aioretryq", "worker", *arguments, cwd=cwd, env=env) as program:
        yield program


def environment(url: str, trace: Path) -> dict[str, str]:
    return {"AIORETRYQ_URL": url, "COUNTING_TRACE": str(trace), "AIORETRYQ_LEASE": LEASE}


async def publish(url: str, count: int, seconds: float, task: str = "counting.work") -> None:
    async with TaskQueue(url) as queue:
        for number in range(count):
            await queue.send_task(task, [number, seconds])


async def queued(url: str) -> int:
    async with TaskQueue(url) as queue:
        return (await queue.broker.depth(["celery"]))["celery"]


def executed(trace: Path) -> Counter[int]:
    return Counter(int(line) for line in trace.read_text().split()) if trace.exists() else Counter()


def pids(program: Program, number: int) -> list[int]:
    return [int(pid) for pid in re.findall(rf"Worker {number} started, pid (\d+)", program.output)]


# -- decisions


def restarts() -> Restarts:
    return Restarts(RetryPolicy(max_retries=None, backoff=1, backoff_max=8, jitter=False))


def test_delays_grow_and_begin_again_after_a_child_has_lived() -> None:
    decisions, now, delays = restarts(), 0.0, []
    for lived in (1, 1, 1, 1, 1, STEADY, 1):
        decisions.started(1, now)
        decisions.ready(1)
        now += lived
        delays.append(decisions.ended(1, -signal.SIGKILL, now))
    assert delays == [1, 2, 4, 8, 8, 1, 2]


def test_each_child_has_delays_of_its_own_and_they_are_drawn() -> None:
    decisions = Restarts(random=random.Random(7))
    delays = []
    for _ in range(100):
        for number in (1, 2):
            decisions.started(number, 0.0)
            decisions.ready(number)
        delays.append(decisions.ended(1, -signal.SIGSEGV, 1.0))
    assert all(delay is not None and 0 <= delay <= RESTART_POLICY.backoff_max for delay in delays)
    assert len(set(delays)) == 100
    first = decisions.ended(2, -signal.SIGSEGV, 1.0)
    assert first is not None
    assert first <= RESTART_POLICY.ceiling(0)


@pytest.mark.parametrize("code", [1, 2])
def test_the_first_child_that_says_why_it_cannot_live_is_not_repeated(code: int) -> None:
    decisions = restarts()
    decisions.started(1, 0.0)
    assert decisions.ended(1, code, 0.5) is None


@pytest.mark.parametrize(("ready", "code"), [(False, -signal.SIGSEGV), (False, 0), (True, 1)])
def test_gives_up_after_several_starts_in_a_row_that_do_not_live(ready: bool, code: int) -> None:
    decisions, delays = restarts(), []
    for _ in range(FAILURES):
        decisions.started(1, 0.0)
        if ready:
            decisions.ready(1)
        delays.append(decisions.ended(1, code, 0.5))
    assert delays[-1] is None
    assert None not in delays[:-1]


def test_does_not_give_up_while_others_work_or_because_of_signals() -> None:
    decisions = restarts()
    for number in (1, 2):
        decisions.started(number, 0.0)
        decisions.ready(number)
    for _ in range(3 * FAILURES):
        decisions.started(2, 0.0)
        assert decisions.ended(2, 1, 0.5) is not None
    for _ in range(3 * FAILURES):  # killed for its memory, say
        decisions.started(1, 0.0)
        decisions.ready(1)
        assert decisions.ended(1, -signal.SIGKILL, 0.5) is not None


# -- crashes


async def test_a_killed_child_is_replaced_and_nothing_is_lost(url: str, tmp_path: Path) -> None:
    trace, in_flight = tmp_path / "trace", 10
    await publish(url, TASKS, 0.05)
    arguments = ["counting:queue", "--processes", "3", "-c", str(in_flight), "-n", "web@box"]
    with worker(*arguments, env=environment(url, trace)) as program:
        for killed in (1, 2):
            program.wait_for("succeeded", count=50 * killed)
            program.wait_for(f"web-{killed}@box is ready")
            os.kill(pids(program, killed)[0], signal.SIGKILL)
            program.wait_for(f"Worker {killed} started", count=2)
            program.wait_for(f"web-{killed}@box is ready", count=2)
        await until(lambda: len(executed(trace)) == TASKS)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0, program.output[-3000:]
    done = executed(trace)
    assert set(done) == set(range(TASKS))
    assert sum(done.values()) - TASKS <= 2 * in_flight, "more ran twice than was in flight at the kills"
    assert await queued(url) == 0
    assert program.output.count("was killed by SIGKILL") == 2
    assert program.output.count("  broker  ") == 1, "one banner will do"
    assert len(pids(program, 3)) == 1


async def test_a_child_that_is_stopped_by_hand_is_replaced(url: str, tmp_path: Path) -> None:
    with worker("counting:queue", "--processes", "2", env=environment(url, tmp_path / "trace")) as program:
        program.wait_for("is ready", count=2)
        os.kill(pids(program, 2)[0], signal.SIGTERM)
        program.wait_for("is ready", count=3)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0, program.output
    assert "nobody asked" in program.output


@pytest.mark.parametrize(
    ("application", "code", "said"),
    [
        ("broken_application:queue", 1, "a mistake of the application"),
        ("misconfigured_application:queue", 2, "Did you mean 'task_acks_late'?"),
        ("nowhere:queue", 2, "There is no module 'nowhere'"),
    ],
)
def test_an_application_that_cannot_live_ends_at_once_with_one_message(
    application: str, code: int, said: str
) -> None:
    with worker(application, "--processes", "4", cwd=HERE.parent / "cli") as program:
        assert program.wait(20) == code, program.output
    assert " ".join(program.output.split()).count(f"{said}") == 1 + (code == 1)  # its traceback shows the line, too
    assert program.output.count("started, pid") == 1
    assert "Giving up: the workers end before they are ready, or soon after; look at the error" in program.output


def test_an_application_that_kills_its_process_is_tried_a_few_times(tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n")
    with worker("deadly:queue", "--processes", "4", cwd=tmp_path) as program:
        assert program.wait() == 1, program.output
    assert program.output.count("was killed by SIGKILL before it was ready") == FAILURES
    assert len(pids(program, 1)) == FAILURES


# -- stopping


async def test_term_stops_all_and_loses_nothing(url: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    await publish(url, TASKS, 0.2)
    arguments = ["counting:queue", "--processes", "3", "-c", "10", "--grace", "5"]
    with worker(*arguments, env=environment(url, trace)) as program:
        program.wait_for("succeeded", count=30)
        program.signal(signal.SIGTERM)
        asked = time.monotonic()
        assert program.wait() == 0, program.output
        assert time.monotonic() - asked < 5 + 1
    done = executed(trace)
    assert max(done.values()) == 1
    assert len(done) + await queued(url) == TASKS
    assert "was killed" not in program.output


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("first", "last"), [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT), (None, signal.SIGQUIT)]
)
async def test_two_signals_or_quit_end_the_grace(
    url: str, tmp_path: Path, processes: int, first: signal.Signals | None, last: signal.Signals
) -> None:
    await publish(url, 4, 600)
    arguments = ["counting:queue", "--processes", str(processes), "-c", "2", "-l", "debug"]
    with worker(*arguments, env=environment(url, tmp_path / "trace")) as program:
        program.wait_for("] started", count=2 * processes)
        if first is not None:
            os.killpg(program.process.pid, first)  # as a terminal does; it reaches each worker once
            program.wait_for("have 25 s to finish", count=processes)
        os.killpg(program.process.pid, last)
        asked = time.monotonic()
        assert program.wait() == 0, program.output
        assert time.monotonic() - asked < 5, program.output
    assert await queued(url) == 4


async def test_a_signal_to_every_process_is_one_request(url: str, tmp_path: Path) -> None:
    # systemd's way of stopping a unit
    trace = tmp_path / "trace"
    await publish(url, 4, 2.0)
    arguments = ["counting:queue", "--processes", "2", "-c", "2", "-l", "debug"]
    with worker(*arguments, env=environment(url, trace)) as program:
        program.wait_for("] started", count=4)
        for pid in (*pids(program, 1), *pids(program, 2), program.process.pid):
            os.kill(pid, signal.SIGTERM)
        assert program.wait() == 0, program.output
    assert executed(trace) == Counter(range(4)), program.output


async def test_children_do_not_outlive_a_supervisor_that_was_killed(url: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    await publish(url, TASKS, 0.2)
    with worker("counting:queue", "--processes", "3", "-c", "10", env=environment(url, trace)) as program:
        program.wait_for("succeeded", count=30)
        program.signal(signal.SIGKILL)
        program.wait_for("has stopped", count=3)
        program.wait()
    assert program.output.count("The supervisor is gone") == 3
    done = executed(trace)
    assert max(done.values()) == 1
    assert len(done) + await queued(url) == TASKS


BLOCKING = """
import time
from aioretryq import TaskQueue

queue = TaskQueue()

@queue.task
async def block():
    print("blocks", flush=True)
    time.sleep(600)
"""


async def test_a_blocked_child_is_killed_after_the_grace(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "blocking.py").write_text(BLOCKING)
    async with TaskQueue(redis_url) as queue:
        await queue.send_task("blocking.block")
    arguments = ["blocking:queue", "--processes", "2", "--grace", "0"]
    with worker(*arguments, cwd=tmp_path, env={"AIORETRYQ_URL": redis_url}) as program:
        program.wait_for("blocks")
        program.signal(signal.SIGTERM)
        assert program.wait(LAST_SECONDS + 10) == 1, program.output
    assert program.output.count("did not stop and is killed") == 1


async def test_a_blocked_child_does_not_outlive_its_supervisor(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "blocking.py").write_text(BLOCKING)
    async with TaskQueue(redis_url) as queue:
        await queue.send_task("blocking.block")
    arguments = ["blocking:queue", "--processes", "2", "--grace", "0"]
    with worker(*arguments, cwd=tmp_path, env={"AIORETRYQ_URL": redis_url}) as program:
        program.wait_for("blocks")
        program.signal(signal.SIGKILL)
        program.wait_for("Not stopped in time: leaving", timeout=LAST_SECONDS + 10)


STUBBORN = """
import asyncio
import time
from aioretryq import TaskQueue

queue = TaskQueue()

@queue.task
async def refuse():
    print("now it refuses", flush=True)
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

@queue.task
def sleep():
    print("now it sleeps", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_coroutine_that_refuses_to_end_does_not_hold_the_exit(tmp_path: Path, processes: str) -> None:
    url = f"sqlite:///{tmp_path / 'queue.sqlite3'}"
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    async with TaskQueue(url) as queue:
        await queue.send_task("stubborn.refuse")
    arguments = ["stubborn:queue", "--processes", processes, "--grace", "0.2"]
    with worker(*arguments, cwd=tmp_path, env={"AIORETRYQ_URL": url}) as program:
        program.wait_for("now it refuses")
        program.signal(signal.SIGTERM)
        assert program.wait(LAST_SECONDS) == 0, program.output
    assert "coroutines refuse to be cancelled" in program.output
    assert "has stopped" in program.output
    assert await queued(url) == 1


@pytest.mark.parametrize(("task", "begun"), [("refuse", "now it refuses"), ("sleep", "now it sleeps")])
async def test_what_cannot_be_stopped_does_not_hold_the_exit_of_a_worker_that_fails(
    redis_url: str, tmp_path: Path, task: str, begun: str
) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    async with TaskQueue(redis_url) as queue:
        await queue.send_task(f"stubborn.{task}")
    forbidden = {"enabled": True, "nopass": True, "categories": ["+@all"], "commands": ["-eval", "-evalsha"]}
    with (
        redis.Redis.from_url(redis_url) as client,
        worker("stubborn:queue", cwd=tmp_path, env={"AIORETRYQ_URL": redis_url}) as program,
    ):
        program.wait_for(begun)
        client.acl_setuser("default", **forbidden)
        try:
            assert program.wait(LAST_SECONDS + 20) == 1, program.output
        finally:
            client.acl_setuser("default", enabled=True, nopass=True, categories=["+@all"])
    assert sum(line.startswith("Error: Redis at") for line in program.lines) == 1, program.output


# -- a broker that is not there yet


@pytest.mark.parametrize("processes", ["1", "3"])
def test_term_ends_the_waiting_for_a_broker(processes: str) -> None:
    server = RedisServer()
    try:
        with worker("counting:queue", "--processes", processes, env={"AIORETRYQ_URL": server.url}) as program:
            program.wait_for("trying again until it is back")
            program.signal(signal.SIGTERM)
            assert program.wait(5) == 0, program.output
    finally:
        server.close()
    assert "is ready" not in program.output


async def test_workers_wait_for_their_broker_and_then_work(tmp_path: Path) -> None:
    server, trace = RedisServer(), tmp_path / "trace"
    try:
        with worker("counting:queue", "--processes", "3", env=environment(server.url, trace)) as program:
            program.wait_for("trying again until it is back")
            server.start()
            program.wait_for("is ready", count=3)
            await publish(server.url, 10, 0)
            await until(lambda: executed(trace) == Counter(range(10)))
            program.signal(signal.SIGTERM)
            assert program.wait() == 0, program.output
    finally:
        server.close()
    assert program.output.count("started, pid") == 3
