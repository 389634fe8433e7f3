"""What a stream of events says about workers and tasks, as far as it can be known."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from aioretryq.protocol.event import group_of

if TYPE_CHECKING:
    from aioretryq.protocol.event import Event

T = TypeVar("T")

WINDOW = 2.0
"""A worker is alive until so many times its heartbeat's interval have passed without one."""

SLACK = 1.0
"""Seconds beyond that: heartbeats travel, and wait behind other events."""

SLOWEST = 60.0
"""Seconds between heartbeats that are assumed of whoever does not say, or says something odd."""

LONGEST_TEXT = 1024
LONGEST_TRACEBACK = 4096
LONGEST_NAME = 500
"""Tasks and workers whose names are longer are not remembered: ten thousand of them would be a lot."""

STATES = {
    "sent": ("PENDING", 0),
    "received": ("RECEIVED", 1),
    "started": ("STARTED", 2),
    "rejected": ("REJECTED", 4),
    "retried": ("RETRY", 4),
    "cancelled": ("CANCELLED", 4),
    "revoked": ("REVOKED", 5),
    "failed": ("FAILURE", 5),
    "succeeded": ("SUCCESS", 5),
}
"""What an event of a task says about its state, and how far in the life of an attempt that is."""

_CUSTOM = 3
_AGAIN = 4  # the message will be run again: another attempt begins after it
_FINAL = 5

_DESCRIBED = ("name", "args", "kwargs", "retries", "eta", "expires", "root_id", "parent_id")
_OUTCOME = ("result", "exception", "traceback", "runtime", "terminated", "signum", "expired", "requeue")


@dataclass(slots=True)
class WorkerState:
    """A worker, by its last words."""

    hostname: str
    pid: int | None = None
    freq: float = SLOWEST
    active: int | None = None
    processed: int | None = None
    loadavg: tuple[float, ...] = ()
    software: str = ""
    clock: int = 0
    last_heartbeat: float | None = None  # by the receiver's clock
    drift: float = 0.0  # seconds its clock is behind the receiver's, the way included

    def alive(self, now: float) -> bool:
        """Whether its last heartbeat is recent. Its own clock does not matter for that."""
        return self.last_heartbeat is not None and now < self.last_heartbeat + WINDOW * self.freq + SLACK

    def seen(self, event: Event) -> None:
        """Any event of its own is a sign of life."""
        self.pid = _first(event.pid, self.pid)
        self.clock = max(self.clock, event.clock)
        self.drift = event.received - event.timestamp
        self.last_heartbeat = event.received

    def hear(self, event: Event) -> None:
        fields = event.fields
        self.seen(event)
        if event.type == "worker-offline":
            self.last_heartbeat = None
            return
        freq = _of(fields.get("freq"), (int, float))
        if freq is not None:
            self.freq = float(freq) if 0 < freq <= SLOWEST * 60 else SLOWEST
        self.active = _first(_of(fields.get("active"), int), self.active)
        self.processed = _first(_of(fields.get("processed"), int), self.processed)
        load = fields.get("loadavg")
        if isinstance(load, list | tuple) and len(load) <= 3 and all(type(each) in (int, float) for each in load):
            self.loadavg = tuple(map(float, load))
        parts = [_of(fields.get(name), str) for name in ("sw_ident", "sw_ver", "sw_sys")]
        if told := " ".join(part[:40] for part in parts if part):
            self.software = told


@dataclass(slots=True)
class TaskState:
    """A task, by all that was told of it in whatever order. Values are of the types they should have, or None."""

    uuid: str
    state: str = "PENDING"
    timestamp: float = 0.0  # of the event that gave it its state
    clock: int = 0
    worker: str | None = None
    client: str | None = None
    name: str | None = None
    args: str | None = None
    kwargs: str | None = None
    retries: int | None = None
    eta: str | None = None
    expires: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    queue: str | None = None
    result: str | None = None
    exception: str | None = None
    traceback: str | None = None
    runtime: float | None = None
    terminated: bool | None = None
    signum: int | None = None
    expired: bool | None = None
    requeue: bool | None = None
    times: dict[str, float] = field(default_factory=dict)
    """When it was sent, received, started and so on, the last time each."""
    _rank: int = 0

    @property
    def final(self) -> bool:
        return self._rank == _FINAL

    def hear(self, event: Event, subject: str) -> None:
        state, rank = STATES.get(subject, (subject.upper()[:40], _CUSTOM))
        self.clock = max(self.clock, event.clock)
        if subject in STATES:
            self.times[subject] = max(event.timestamp, self.times.get(subject, 0.0))
        newest = event.timestamp >= self.timestamp
        if subject == "sent":
            self.client = event.hostname
            self.queue = _first(_of(event.fields.get("queue"), str), self.queue)
        elif newest or self.worker is None:
            self.worker = event.hostname
        self._describe(event, replace=newest and subject == "received")
        # Late news does not undo what is known to have come after it; but after a retry everything begins anew.
        again = self._rank == _AGAIN and newest and subject != "sent"
        if rank > self._rank or again or (rank == self._rank and newest):
            self.state, self._rank, self.timestamp = state, rank, event.timestamp
            for name in _OUTCOME if rank != _CUSTOM else ():
                setattr(self, name, _fitting(name, event.fields.get(name)))

    def _describe(self, event: Event, *, replace: bool) -> None:
        for name in _DESCRIBED:
            value = _fitting(name, event.fields.get(name))
            if value is not None and (replace or getattr(self, name) is None):
                setattr(self, name, value)


_TYPES: dict[str, Any] = {
    "retries": int,
    "runtime": (int, float),
    "terminated": bool,
    "signum": int,
    "expired": bool,
    "requeue": bool,
}


def _fitting(name: str, value: Any) -> Any:
    found = _of(value, _TYPES.get(name, str))
    if not isinstance(found, str):
        return found
    return found[-LONGEST_TRACEBACK:] if name == "traceback" else found[:LONGEST_TEXT]


def _of(value: Any, kind: Any) -> Any:
    """The value if it is of that type: events come from whoever can write to the broker."""
    return value if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) else None


def _first(value: T | None, otherwise: T | None) -> T | None:
    return otherwise if value is None else value


class State:
    """Workers and tasks, fed with events in whatever order they arrive.

    Bounded: of `max_workers` and `max_tasks` those that were not heard of for the longest time are forgotten.
    """

    def __init__(self, *, max_workers: int = 5_000, max_tasks: int = 10_000) -> None:
        self.workers: OrderedDict[str, WorkerState] = OrderedDict()
        self.tasks: OrderedDict[str, TaskState] = OrderedDict()
        self.events = 0
        self._max_workers = max_workers
        self._max_tasks = max_tasks

    def hear(self, event: Event) -> None:
        self.events += 1
        if len(event.hostname) > LONGEST_NAME or len(event.uuid or "") > LONGEST_NAME:
            return
        group = group_of(event.type)
        if group == "worker":
            self._worker(event.hostname).hear(event)
        elif group == "task" and event.uuid is not None:
            subject = event.type.removeprefix("task-")
            self._task(event.uuid).hear(event, subject)
            if subject != "sent":
                self._worker(event.hostname).seen(event)

    def alive(self, now: float) -> list[WorkerState]:
        return [worker for worker in self.workers.values() if worker.alive(now)]

    def _worker(self, hostname: str) -> WorkerState:
        found = self.workers.setdefault(hostname, WorkerState(hostname))
        self.workers.move_to_end(hostname)
        if len(self.workers) > self._max_workers:
            self.workers.popitem(last=False)
        return found

    def _task(self, uuid: str) -> TaskState:
        found = self.tasks.setdefault(uuid, TaskState(uuid))
        self.tasks.move_to_end(uuid)
        if len(self.tasks) > self._max_tasks:
            self.tasks.popitem(last=False)
        return found
