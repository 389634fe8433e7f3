"""Events between this library and the real Celery: each one's watchers see the other's workers and clients."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.events.dumper import TASK_NAMES, Dumper
from celery.events.state import State as CeleryState
from events_celery import CeleryView

from aioretryq import TaskQueue
from aioretryq.cli.event_text import Lines
from aioretryq.events import Event, State
from aioretryq.protocol.event import decode_events
from programs import Program, aioretryq_worker, running
from redis_server import RedisServer

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE.parent / "golden" / "events.json").read_text())
COMMON = {"type", "hostname", "timestamp", "utcoffset", "pid", "clock", "local_received"}


def fields_of_golden(kind: str) -> set[str]:
    """What Celery's own workers and clients say in events of that type."""
    case = next(case for case in GOLDEN if case.partition(" ")[0] == kind)
    body = GOLDEN[case]["decoded_body"]
    return {*(body[0] if isinstance(body, list) else body)} - COMMON


def celery(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "celery", "-A", "events_celery", *arguments]


@pytest.fixture(scope="module")
def url(redis_server: RedisServer) -> str:
    """A database of its own: channels are named after it."""
    with redis.Redis.from_url(redis_server.url_of(7)) as client:
        client.flushdb()
    return redis_server.url_of(7)


@pytest.fixture(scope="module")
def env(url: str) -> dict[str, str]:
    return {"INTEROP_REDIS": url}


# -- Celery watches ours


class Run:
    """A worker of ours did one of everything, while Celery's watchers looked on."""

    def __init__(self, view: CeleryView, dump: Program, ids: dict[str, str]) -> None:
        self.view = view
        self.dump = dump
        self.ids = ids


async def do_everything(url: str, view: CeleryView) -> dict[str, str]:
    """The ids of the tasks, by what becomes of them; one is left running."""
    async with TaskQueue(url, task_send_sent_event=True) as queue:
        sent = {
            "task-succeeded": await queue.send_task("events.add", [1, 2]),
            "task-progress": await queue.send_task("events.plain", [7]),
            "task-failed": await queue.send_task("events.fail"),
            "task-retried": await queue.send_task("events.flaky", [1]),
            "task-rejected": await queue.send_task("events.reject"),
            "task-revoked": await queue.send_task("events.add", [1, 2], expires=-1),
            "terminated": await queue.send_task("events.endless"),
            "task-cancelled": await queue.send_task("events.endless"),
        }
        ids = {what: result.id for what, result in sent.items()}
        for what in ("terminated", "task-cancelled"):
            await asyncio.to_thread(view.wait, ids[what], "task-started")
        await queue.revoke(ids["terminated"], terminate=True)
        for what, kind in {**{kind: kind for kind in ids}, "terminated": "task-revoked"}.items():
            if what != "task-cancelled":
                await asyncio.to_thread(view.wait, ids[what], kind)
        await asyncio.to_thread(view.wait, ids["task-retried"], "task-succeeded")
    return ids


@pytest.fixture(scope="module")
def run(url: str, env: dict[str, str]) -> Iterator[Run]:
    with CeleryView(url) as view, running(*celery("events", "--dump"), env=env, cwd=HERE) as dump:
        dump.wait_for("starting capture")
        arguments = ["events_ours:queue", "-E", "-n", "ours@here", "--heartbeat-interval", "0.5", "--grace", "0"]
        with aioretryq_worker(*arguments, env=env, cwd=HERE) as worker:
            view.wait(None, "worker-heartbeat")
            dump.wait_for("ours@here")  # both listen
            ids = asyncio.run(do_everything(url, view))
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
        view.wait(None, "worker-offline")
        dump.wait_for("shutdown")
        yield Run(view, dump, ids)
    with redis.Redis.from_url(url) as client:
        client.flushdb()  # the task that was handed back


TOLD = {
    "task-sent": (
        "task-succeeded",
        {"name": "events.add", "args": "(1, 2)", "queue": "celery", "routing_key": "celery"},
    ),
    "task-received": ("task-succeeded", {"name": "events.add", "args": "(1, 2)", "kwargs": "{}", "retries": 0}),
    "task-started": ("task-succeeded", {}),
    "task-succeeded": ("task-succeeded", {"result": "3"}),
    "task-failed": ("task-failed", {"exception": "ValueError('bad', 42)"}),
    "task-retried": ("task-retried", {"exception": "KeyError('k')"}),
    "task-revoked": ("task-revoked", {"expired": True, "terminated": False, "signum": None}),
    "task-cancelled": ("task-cancelled", {}),
}


@pytest.mark.parametrize("kind", TOLD)
def test_celery_sees_our_events_as_its_own(run: Run, kind: str) -> None:
    what, expected = TOLD[kind]
    event = run.view.wait(run.ids[what], kind)
    assert {*event} - COMMON == fields_of_golden(kind)
    assert {name: event[name] for name in expected} == expected
    assert abs(event["timestamp"] - time.time()) < 120
    assert event["hostname"] == "ours@here" or (kind == "task-sent" and event["hostname"].startswith("gen"))


def test_celery_sees_what_has_no_sample(run: Run) -> None:
    assert run.view.wait(run.ids["task-rejected"], "task-rejected")["requeue"] is False
    assert run.view.wait(run.ids["task-progress"], "task-progress")["percent"] == 50
    terminated = run.view.wait(run.ids["terminated"], "task-revoked")
    assert (terminated["terminated"], terminated["signum"], terminated["expired"]) == (True, 15, False)


@pytest.mark.parametrize("kind", ["worker-heartbeat", "worker-offline"])
def test_celery_sees_our_worker(run: Run, kind: str) -> None:
    event = run.view.wait(None, kind)
    assert {*event} - COMMON == fields_of_golden(kind)
    assert (event["hostname"], event["freq"], event["sw_ident"]) == ("ours@here", 0.5, "aioretryq")


def test_celerys_state_understands_them(run: Run) -> None:
    tasks = run.view.state.tasks
    states = {what: tasks[task_id].state for what, task_id in run.ids.items()}
    assert states == {
        "task-succeeded": "SUCCESS",
        "task-progress": "SUCCESS",
        "task-failed": "FAILURE",
        "task-retried": "SUCCESS",
        "task-rejected": "FAILURE",  # it is not delivered again
        "task-revoked": "REVOKED",
        "terminated": "REVOKED",
        "task-cancelled": "CANCELLED",
    }
    task = tasks[run.ids["task-succeeded"]]
    assert (task.name, task.args, task.result, task.worker.hostname) == ("events.add", "(1, 2)", "3", "ours@here")
    assert task.runtime < 5
    assert task.client.startswith("gen")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("task-succeeded", "task sent: events.add({id}) args=(1, 2) kwargs={} "),
        ("task-succeeded", "task received: events.add({id}) args=(1, 2) kwargs={} "),
        ("task-succeeded", "task started: events.add({id})"),
        ("task-succeeded", "task succeeded: events.add({id})"),
        ("task-failed", "task failed: events.fail({id})"),
        ("task-retried", "task retried: events.flaky({id})"),
        ("task-rejected", "task rejected: events.reject({id})"),
        ("task-revoked", "task revoked: events.add({id})"),
        ("task-cancelled", "task cancelled: events.endless({id})"),
        ("task-progress", "task progress: events.plain({id})"),
    ],
)
def test_celery_events_dump(run: Run, what: str, said: str) -> None:
    line = said.replace("{id}", run.ids[what])
    run.dump.wait_for(line)
    if "sent" not in said:
        assert any(line in each and each.startswith("ours@here") for each in run.dump.lines)


def test_celery_events_dump_of_the_worker(run: Run) -> None:
    for kind in ("heartbeat", "shutdown"):
        assert any(f"] {kind}: active=" in line and line.startswith("ours@here") for line in run.dump.lines)


# -- we watch Celery's


async def watch(url: str, until: Callable[[list[Event]], bool], work: Callable[[TaskQueue], Any]) -> list[Event]:
    events: list[Event] = []
    async with TaskQueue(url) as queue, queue.events() as heard, asyncio.timeout(40):
        await work(queue)
        async for event in heard:
            events.append(event)
            if until(events):
                break
    return events


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_we_see_celerys_worker(url: str, env: dict[str, str], pool: str) -> None:
    """`solo` sends one event in each message, `prefork` lists."""
    ids: dict[str, str] = {}

    async def work(queue: TaskQueue) -> None:
        sent = {
            "task-succeeded": await queue.send_task("events.add", [1, 2]),
            "task-progress": await queue.send_task("events.plain", [7]),
            "task-failed": await queue.send_task("events.fail"),
            "task-retried": await queue.send_task("events.flaky", [1]),
            "task-rejected": await queue.send_task("events.reject"),
            "task-revoked": await queue.send_task("events.add", [1, 2], expires=-1),
        }
        ids.update({what: result.id for what, result in sent.items()})

    def complete(events: list[Event]) -> bool:
        seen = {(event.uuid, event.type) for event in events}
        ended = (ids["task-retried"], "task-succeeded") in seen and (None, "worker-heartbeat") in seen
        return ended and all((ids[kind], kind) in seen for kind in ids)

    worker = celery("worker", "-P", pool, "-c", "2", "-E", "-l", "INFO", "-n", f"{pool}@there", "--without-gossip")
    with running(*worker, env=env, cwd=HERE) as program:
        program.wait_for(" ready.", timeout=60)
        events = asyncio.run(watch(url, complete, work))
    state, theirs = State(), CeleryState()
    for event in events:
        state.hear(event)
        theirs.event({**event.as_dict(), "local_received": event.received})
    assert state.workers[f"{pool}@there"].software.startswith("py-celery 5")
    assert state.alive(events[-1].received) != []
    for what, task_id in ids.items():
        task, their_task = state.tasks[task_id], theirs.tasks[task_id]
        # Two processes of a pool may tell of a retry after the success that followed; Celery then shows RETRY.
        assert task.state == their_task.state or (what, their_task.state) == ("task-retried", "RETRY")
        assert (task.name, task.args, task.worker) == (their_task.name, their_task.args, f"{pool}@there") or (
            what == "task-revoked"  # Celery's worker never says its name
        )
    assert state.tasks[ids["task-succeeded"]].result == "3"
    assert state.tasks[ids["task-failed"]].exception == "ValueError('bad', 42)"
    assert state.tasks[ids["task-retried"]].state == "SUCCESS"


def test_we_see_celerys_clients(url: str, env: dict[str, str]) -> None:
    code = "import events_celery; print('sent', events_celery.add.apply_async((1, 2), countdown=60).id)"

    async def work(_: TaskQueue) -> None:
        with running(sys.executable, "-W", "ignore", "-c", code, env=env, cwd=HERE) as program:
            await asyncio.to_thread(program.wait_for, "sent ")

    (event,) = asyncio.run(watch(url, bool, work))
    assert (event.type, event.fields["name"], event.fields["queue"]) == ("task-sent", "events.add", "celery")
    assert set(event.fields) == fields_of_golden("task-sent")
    with redis.Redis.from_url(url) as client:
        client.flushdb()


def test_celery_workers_live_with_our_heartbeats(url: str, env: dict[str, str]) -> None:
    """Gossip listens to the events of all workers, and complains of what it does not understand."""
    worker = celery("worker", "-P", "solo", "-l", "DEBUG", "-n", "gossip@there", "-Q", "elsewhere")
    with running(*worker, env=env, cwd=HERE) as program:
        program.wait_for(" ready.", timeout=60)
        arguments = ["events_ours:queue", "-n", "ours@here", "--heartbeat-interval", "0.5"]
        with aioretryq_worker(*arguments, env=env, cwd=HERE) as ours:
            program.wait_for("ours@here joined the party")
            ours.signal(signal.SIGTERM)
            ours.wait()
        program.wait_for("ours@here left")
    assert "Traceback" not in program.output
    assert "ERROR" not in program.output


# -- the same, told twice


def test_our_lines_are_those_of_celery() -> None:
    ours, out = Lines(), io.StringIO()
    theirs = Dumper(out=out)
    TASK_NAMES.clear()
    for found in GOLDEN.values():
        for event in decode_events(json.dumps(found["raw"]).encode(), now=5.0):
            assert isinstance(event, Event)
            line = ours.line(event)
            theirs.on_event({**event.as_dict(), "local_received": event.received})
            shown = out.getvalue().rstrip("\n").replace("\n", "\\n")
            out.seek(0)
            out.truncate()
            assert line in (
                shown,
                shown.replace(":  ", f": {event.uuid} "),
            )  # of tasks nobody has named we show the id
