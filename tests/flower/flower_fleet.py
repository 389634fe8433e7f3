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

CELERY = "celery@shop"
OURS = "aioretryq@shop"
QUEUES = {CELERY: "celery", OURS: "moved"}

TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "priced": ("shop.price", {"args": ["tea"], "kwargs": {"pieces": 3}}),
    "failed": ("shop.pay", {"args": [17]}),
    "shipped": ("shop.ship", {"args": [2]}),
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


def state_of(worker: str, outcome: str) -> str:
    # Celery's worker takes the message of a retry at once, and keeps it until it is due; ours leaves it in the broker.
    return "RECEIVED" if (worker, outcome) == (CELERY, "waiting") else STATES[outcome]


@dataclass
class Fleet:
    """What tests see: Flower over HTTP, and what it has printed."""

    redis_url: str
    url: str
    http: httpx.Client
    flower: Program
    ids: dict[str, dict[str, str]] = field(default_factory=dict)
    """By worker and by what became of them, see `TASKS`."""

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

    def task_is(self, task_id: str, state: str) -> dict[str, Any]:
        """Once it is in that state."""
        until(lambda: self.task(task_id).get("state") == state, lambda: f"{state}, not {self.task(task_id)}")
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
        env = {"FLOWER_REDIS": server.url, "C_FORCE_ROOT": "1", "FLOWER_UNAUTHENTICATED_API": "true"}
        celery = [sys.executable, "-m", "celery", "-A", "flower_shop"]
        worker = ["worker", "-E", "-P", "threads", "-c", "4", "-n", CELERY, "-l", "INFO", "--heartbeat-interval", "1"]
        theirs = stack.enter_context(running(*celery, *worker, env=env, cwd=HERE))
        port = free_port()
        server_options = [f"--port={port}", "--address=127.0.0.1", "--inspect_timeout=2000"]
        flower = stack.enter_context(running(*celery, "flower", *server_options, env=env, cwd=HERE))
        stack.enter_context(our_worker(OURS, QUEUES[OURS], env))
        theirs.wait_for(" ready.", timeout=60)
        flower.wait_for("Connected to", timeout=60)
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE))
        found = Fleet(server.url, str(http.base_url), http, flower)
        _populate(found)
        yield found


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
    for task_id in never:
        fleet.post(f"/task/revoke/{task_id}")
    for name in QUEUES:
        until(lambda name=name: never <= set(fleet.worker(name)["revoked"]))
    for worker, ids in fleet.ids.items():
        for each, (name, options) in TASKS.items():
            fleet.send(worker, name, task_id=ids[each], **options)
    for worker, ids in fleet.ids.items():
        for each, task_id in ids.items():
            fleet.task_is(task_id, state_of(worker, each))
