"""Flower, and one worker of each kind on the same Redis, each a program of its own."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from programs import Program, aioretryq_worker, running
from redis_server import RedisServer, free_port

HERE = Path(__file__).parent
PATIENCE = 20.0
CELERY_COMMAND = [sys.executable, "-m", "celery"]

CELERY = "celery@shop"
OURS = "aioretryq@shop"
QUEUES = {CELERY: "celery", OURS: "moved"}

TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "priced": ("shop.price", {"args": ["tea"], "kwargs": {"pieces": 3}}),
    "failed": ("shop.pay", {"args": [17]}),
    "shipped": ("shop.ship", {"args": [1, 0.5]}),
    "waiting": ("shop.ship", {"args": [1, 600]}),
    "revoked": ("shop.pack", {"args": [60]}),
    "expired": ("shop.pack", {"args": [60], "expires": 0.001}),
    "refused": ("shop.refuse", {"args": [18]}),
}
"""What each worker is given."""

STATES = {
    "priced": "SUCCESS",
    "failed": "FAILURE",
    "shipped": "SUCCESS",
    "waiting": "RETRY",
    "revoked": "REVOKED",
    "expired": "REVOKED",
    "refused": "FAILURE",
}


def states_of(worker: str, outcome: str) -> tuple[str, ...]:
    """Those a task may be in, once its worker has done what it can."""
    if (worker, outcome) == (CELERY, "waiting"):
        # It takes the message of a retry at once and keeps it; ours leaves it in the broker.
        return "RETRY", "RECEIVED"
    return (STATES[outcome],)


@dataclass
class Fleet:
    """What tests see: Flower over HTTP, and what it has printed."""

    redis_url: str
    url: str
    http: httpx.Client
    flower: Program
    ids: dict[str, dict[str, str]] = field(default_factory=dict)
    """By worker and by what became of them, see `TASKS`."""
    listed: dict[str, Any] = field(default_factory=dict)
    """All workers, as Flower found them when it asked all."""

    def get(self, path: str, **query: Any) -> Any:
        return self.http.get(f"/api{path}", params=query).raise_for_status().json()

    def post(self, path: str, **options: Any) -> Any:
        return self.http.post(f"/api{path}", json=options).raise_for_status().json()

    def send(self, worker: str, name: str, **options: Any) -> str:
        """A task for that worker, sent by Flower; its id."""
        task_id: str = self.post(f"/task/send-task/{name}", queue=QUEUES[worker], **options)["task-id"]
        return task_id

    def worker(self, name: str) -> dict[str, Any]:
        """All that is known of it, asked now."""
        found: dict[str, Any] = self.get("/workers", refresh=1, workername=name)[name]
        return found

    def task(self, task_id: str) -> dict[str, Any]:
        """Empty while Flower has not heard of it."""
        answer = self.http.get(f"/api/task/info/{task_id}")
        found: dict[str, Any] = {} if answer.status_code == 404 else answer.raise_for_status().json()
        return found

    def task_is(self, task_id: str, *states: str) -> dict[str, Any]:
        """Once it is in one of those states."""
        until(lambda: self.task(task_id).get("state") in states, lambda: f"{states}, not {self.task(task_id)}")
        return self.task(task_id)

    def complaints(self) -> list[str]:
        """Flower's own lines of warnings and errors, or of a traceback."""
        return [line for line in self.flower.lines if line.startswith(("[W ", "[E ", "[C ", "Traceback"))]


def until(condition: Callable[[], Any], why: Callable[[], object] = lambda: "") -> None:
    """For what nothing tells of: look again and again, until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"It did not happen: {why()}")
        time.sleep(0.02)


@contextmanager
def fleet() -> Iterator[Fleet]:
    """Both workers have been given one task of each outcome, and Flower has heard of all."""
    server = RedisServer()
    server.start()
    with ExitStack() as stack:
        stack.callback(server.close)
        # Root is who tests run as in containers, and Celery warns of that.
        env = {"FLOWER_REDIS": server.url, "C_FORCE_ROOT": "1"}
        options = ["-E", "-P", "threads", "-c", "4", "-n", CELERY, "-l", "INFO", "--heartbeat-interval", "1"]
        theirs = stack.enter_context(
            running(*CELERY_COMMAND, "-A", "flower_shop", "worker", *options, env=env, cwd=HERE)
        )
        ours = stack.enter_context(our_worker(OURS, QUEUES[OURS], env))
        # Flower asks for workers when it starts, and complains if there is none.
        found = stack.enter_context(flower("-A", "flower_shop", env=env, redis_url=server.url))
        theirs.wait_for(" ready.", timeout=60)
        try:
            _populate(found)
        except AssertionError as error:
            for program in (theirs, ours, found.flower):
                error.add_note(f"--\n{program.output[-4000:]}")
            raise
        yield found


@contextmanager
def flower(*application: str, redis_url: str, env: dict[str, str]) -> Iterator[Fleet]:
    port = free_port()
    options = [f"--port={port}", "--address=127.0.0.1", "--inspect_timeout=2000"]
    env = {**env, "FLOWER_UNAUTHENTICATED_API": "true"}
    with running(*CELERY_COMMAND, *application, "flower", *options, env=env, cwd=HERE) as program:
        program.wait_for("Connected to", timeout=60)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as http:
            yield Fleet(redis_url, str(http.base_url), http, program)


@contextmanager
def our_worker(name: str, queue: str, env: dict[str, str]) -> Iterator[Program]:
    options = ["-E", "-n", name, "-Q", queue, "-c", "20", "--heartbeat-interval", "0.5"]
    with aioretryq_worker("flower_shop:queue", *options, env=env, cwd=HERE) as program:
        yield program


def _populate(fleet: Fleet) -> None:
    # Flower hears nothing of what happened before it listened to events.
    until(lambda: all(fleet.get("/workers", status=1).get(name) for name in QUEUES))
    fleet.ids.update({worker: {each: str(uuid.uuid4()) for each in TASKS} for worker in QUEUES})
    never = {ids["revoked"] for ids in fleet.ids.values()}

    def revoked(worker: str) -> bool:
        for task_id in never:  # again and again: Celery says that it is ready before it listens
            fleet.post(f"/task/revoke/{task_id}")
        return never <= set(fleet.worker(worker)["revoked"])

    for name in QUEUES:
        until(lambda name=name: revoked(name))
    for worker, ids in fleet.ids.items():
        for each, (name, options) in TASKS.items():
            fleet.send(worker, name, task_id=ids[each], **options)
    # Flower asks all when it starts; answers that came late would replace what is asked for in a test.
    fleet.listed = fleet.get("/workers", refresh=1)
    for worker, ids in fleet.ids.items():
        for each, task_id in ids.items():
            fleet.task_is(task_id, *states_of(worker, each))
