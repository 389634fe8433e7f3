"""What our worker puts around the tasks of a Celery application: crashes, stops, revocation, dead letters, errors."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery_bridge.conftest import HERE, SHOP, Shop

from aioretryq import TaskQueue
from programs import ROOT, aioretryq_worker, environment
from redis_server import RedisServer

WORKER_SIGNALS = [
    "celeryd_init",
    "worker_init",
    "celeryd_after_setup",
    "worker_process_init",
    "worker_ready",
    "worker_shutting_down",
    "worker_process_shutdown",
    "worker_shutdown",
]


def until(condition: Callable[[], Any], timeout: float = 30) -> Any:
    """Looks into the database until it is so: nobody announces what tasks write there."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def final(shop: Shop, task_id: str) -> dict[str, Any]:
    def ready() -> dict[str, Any] | None:
        found = shop.result(task_id)
        return found if found is not None and found["status"] in ("SUCCESS", "FAILURE", "REVOKED") else None

    found: dict[str, Any] = until(ready)
    return found


def test_stopping(shop):
    """What ends within the grace is done, the rest is back in its queue; signals are sent in Celery's order."""
    with shop.our_worker("-c", "3", "-n", "till@%h", "-E", "--grace", "1") as program:
        short, long = shop.send("orders.slow", 0.4), shop.send("orders.slow", 60)
        waiting = shop.send("pictures.wait", 60)
        until(lambda: "slow begins" in shop.journal(short) and "slow begins" in shop.journal(long))
        until(lambda: "wait begins" in shop.journal(waiting) and "worker_ready" in shop.journal("worker"))
        program.signal(signal.SIGTERM)

        assert program.wait() == 0

    assert shop.result(short)["result"] == "done"
    assert {json.loads(each)["headers"]["id"] for each in shop.redis.lrange("shop", 0, -1)} == {long, waiting}
    assert "cancelled SHUTDOWN" in shop.journal(waiting)
    assert shop.result(waiting)["status"] == "STARTED"
    assert not any(line.startswith(("task_failure", "task_retry")) for line in shop.journal(waiting))
    assert shop.journal("worker") == WORKER_SIGNALS
    assert "concurrency  3 coroutines, 3 threads" in program.output
    assert f"early acknowledgement (lost if this worker dies): {SHOP}.orders.charge_card" in program.output
    assert "without effect here: worker_max_tasks_per_child" in program.output


def test_crashes(shop):
    """Tasks that kill their worker run again, but not for ever."""
    with shop.our_worker("--processes", "2", "-c", "1") as program:
        program.wait_for(f"celery-2@{socket.gethostname()} is ready.")
        once = shop.send("orders.kill_worker_once")
        always = shop.send("orders.kill_every_worker")

        assert final(shop, once)["result"] == 2
        given_up = final(shop, always)
        until(lambda: any(line.startswith("task_failure WorkerLostError") for line in shop.journal(always)))

    assert (given_up["status"], given_up["result"]["exc_type"]) == ("FAILURE", "WorkerLostError")
    assert shop.redis.get(f"shop:runs:{always}") == "1"
    assert shop.journal("worker").count("worker_process_init") >= 3


@pytest.fixture(scope="module")
def served(server: RedisServer) -> Iterator[Shop]:
    """With one worker for several tests."""
    shop = Shop(server.url_of(6))
    with shop.our_worker():
        yield shop
    shop.close()


class TestOneWorker:
    def test_early_acknowledgement_of_a_task_is_kept(self, served):
        assert final(served, served.send("orders.charge_card"))["result"] == 1

    async def test_a_revoked_coroutine_is_cancelled(self, served):
        task = served.send("pictures.wait", 60)
        until(lambda: "wait begins" in served.journal(task))
        async with TaskQueue(served.url) as queue:
            await queue.revoke(task, terminate=True)
        until(lambda: "task_revoked terminated=True expired=False" in served.journal(task))

        found = final(served, task)
        assert (found["status"], found["result"]["exc_message"]) == ("REVOKED", ["terminated"])
        assert "cancelled REVOKED" in served.journal(task)

    async def test_a_revoked_function_runs_on_but_stores_nothing(self, served):
        task = served.send("orders.slow", 0.5)
        until(lambda: "slow begins" in served.journal(task))
        async with TaskQueue(served.url) as queue:
            await queue.revoke(task, terminate=True)
        until(lambda: "task_postrun None" in served.journal(task))

        assert served.result(task)["status"] == "REVOKED"

    async def test_rejected_tasks_are_dead_letters(self, served):
        task = served.send("orders.refuse", "damaged")
        assert final(served, task)["status"] == "FAILURE"
        until(lambda: served.redis.exists("aioretryq.dead"))
        async with TaskQueue(served.url) as queue:
            letters = [letter async for letter in queue.dead_letters.list()]

        assert [(letter.task_id, letter.reason) for letter in letters] == [(task, "rejected")]


def test_other_backends_serializers_and_keyprefixes(shop, tmp_path):
    env = {"SHOP_REDIS": shop.url, "ODD_RESULTS": str(tmp_path), "PYTHONPATH": f"{ROOT}:{HERE}"}
    with aioretryq_worker("--celery", "oddities", "-l", "warning", env=env, cwd=HERE) as program:
        said = run(str(HERE / "oddities.py"), **env)

    assert said.splitlines()[:5] == [
        "double: 8",
        "backwards: 10",
        "classy: True",
        "parent: 14",
        "pydantic: [{'town': 'ULM'}, {'town': 'Ulm', 'note': None}, None]",
    ]
    assert "Never call result.get() within a task" in said
    assert "concurrency  100 coroutines, 3 threads" in program.output
    assert f"results      file://{tmp_path}" in program.output
    assert "no result backend" not in program.output
    early = next(line for line in program.lines if "early acknowledgement" in line)  # task_acks_late = False
    assert "odd.classy" in early
    assert "odd.double" not in early
    host = socket.gethostname()
    assert program.lines[0].startswith(f"aioretryq worker celery@{host} (pid")  # no line of a log
    assert f"celery@{host} is ready." in program.lines


WRONG = {
    "nowhere.app:app": "There is no module 'nowhere'",
    f"{SHOP}:shop": f"{SHOP}:shop does not exist. It has: {SHOP}:app.",
    f"{SHOP}.store": f"There is no Celery application in {SHOP}.store.",
    "examples.quickstart:queue": "is a TaskQueue, not a Celery application: leave --celery out",
    f"{SHOP}.orders:total": "not a Celery application",
    "shop/app.py": "is not the name of a module. Did you mean shop.app?",
    "breaks:app": "breaks:app raised an error while it was imported",
    "lacks:app": "No module named 'not_there_at_all'",
    "nope": "There is no module 'nope'",
    "examples.nope": "There is no module 'examples.nope'",
    "rabbit:app": "broker_url: amqp:// is not supported yet. Set a Redis URL, or give --url.",
    "unset:app": "broker_url is not set",
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "breaks.py").write_text("raise ZeroDivisionError('while it was imported')")
    (folder / "lacks.py").write_text("import not_there_at_all")
    (folder / "rabbit.py").write_text("from celery import Celery\napp = Celery(broker='amqp://guest@localhost//')")
    (folder / "unset.py").write_text("from celery import Celery\napp = Celery()")
    said = run(str(HERE / "refusals.py"), *WRONG, PYTHONPATH=f"{ROOT}:{folder}")
    answers: dict[str, tuple[int, str]] = json.loads(said)
    return answers


@pytest.mark.parametrize("app", WRONG)
def test_what_cannot_be_served_is_said(refusals, app):
    code, said = refusals[app]
    assert code in (1, 2)
    assert WRONG[app] in " ".join(said.split())
    assert ("Traceback" in said) == (app in ("breaks:app", "lacks:app"))  # the users' own


def run(*arguments: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**environment(), **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_celery_is_not_installed():
    program = "import sys; sys.modules['celery'] = None; sys.argv = ['refusals', 'proj']; import refusals"
    code, said = json.loads(run("-c", program, PYTHONPATH=f"{ROOT}:{HERE}"))["proj"]
    assert code == 2
    assert "--celery needs Celery, and celery is not installed here" in said


def test_celery_is_imported_only_where_it_is_asked_for():
    program = (
        "import sys, aioretryq.cli, aioretryq.worker; "
        "print([name for name in sys.modules if name.partition('.')[0] in ('celery', 'kombu', 'billiard')])"
    )
    assert run("-c", program).strip() == "[]"
