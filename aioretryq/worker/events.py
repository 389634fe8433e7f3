"""What the worker tells those who watch: one event for each step of a task, and its own heartbeat.

A message that comes to an end here has been received before, also when its task does not run (revoked, expired,
given up): monitors know its name only from that. One that is parked, because it is not due or because its task is
unknown here, has not been received: whoever takes it later receives it.
"""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Any

import anyio

from aioretryq import states
from aioretryq.errors import EncodeError, NotRegistered
from aioretryq.outcome import (
    Failed,
    GivenUp,
    Ignored,
    Interrupted,
    Outcome,
    Rejected,
    Replaced,
    RetryAsked,
    Revoked,
    Succeeded,
)
from aioretryq.protocol.result import exception_of
from aioretryq.protocol.saferepr import saferepr
from aioretryq.worker.heartbeat import vital_signs

if TYPE_CHECKING:
    from aioretryq.app import TaskQueue
    from aioretryq.config import Settings
    from aioretryq.message import TaskMessage
    from aioretryq.protocol.result import ResultDocument
    from aioretryq.worker.jobs import Job, Jobs
    from aioretryq.worker.settlement import Settlement

logger = logging.getLogger("aioretryq.worker")

LAST_EVENTS = 1.0
"""Seconds that a stopping worker waits for its last events to be sent."""

Told = tuple[str, dict[str, Any]]
"""Type and fields of an event."""


class Events:
    """Never delays work: events are sent in the background, and what cannot be sent soon is dropped and counted.

    While `enabled` is false only heartbeats are sent, and those of `Task.send_event`.
    """

    def __init__(self, queue: TaskQueue, jobs: Jobs, *, name: str) -> None:
        self._queue = queue
        self._jobs = jobs
        self._name = name
        self._sender = queue.connections.events
        self.freq = queue.conf.worker_heartbeat_interval
        self.enabled = queue.conf.worker_send_task_events
        self._gone = False

    @property
    def dropped(self) -> int:
        """Events that were not sent: the broker was gone for too long, or could not keep up."""
        return self._sender.dropped

    def enable(self) -> bool:
        """Send events of tasks from now on; False if they were sent already."""
        changed, self.enabled = not self.enabled, True
        if changed:
            logger.info("Events of tasks are sent from now on")
        return changed

    def disable(self) -> bool:
        """Send no more events of tasks; False if none were sent anyway."""
        changed, self.enabled = self.enabled, False
        if changed:
            logger.info("No more events of tasks are sent")
        return changed

    # -- the worker

    async def run(self) -> None:
        """Say that this worker is there, and go on saying so; until cancelled."""
        if not self.freq:
            return
        self._beat("worker-online")
        while True:
            await anyio.sleep(self.freq)
            # An old heartbeat is news of nothing: none of them waits for a broker that is gone.
            if not self._sender.stuck:
                self.heartbeat()

    def heartbeat(self) -> None:
        """One at once, as the remote control command wants it."""
        if not self._gone:  # it would bring the worker back to life, for those who watch
            self._beat("worker-heartbeat")

    async def goodbye(self) -> None:
        """The last words, and a moment for all that has not been sent yet."""
        if self.freq:
            self._beat("worker-offline")
        self._gone = True
        await self._sender.flush(LAST_EVENTS)

    def _beat(self, kind: str) -> None:
        self.send(kind, **vital_signs(self._jobs, self.freq or DEFAULT_FREQ))

    def send(self, kind: str, **fields: Any) -> None:
        """Any event, by its type and fields."""
        try:
            self._sender.send(kind, self._name, fields)
        except EncodeError as error:  # the message of a task may say anything
            self._sender.drop(str(error))

    # -- its tasks: one look at `enabled` where nobody watches

    def received(self, message: TaskMessage) -> None:
        if self.enabled and self._tells(message):
            self.send("task-received", **reception(message))

    def started(self, message: TaskMessage) -> None:
        """Any thread may call it."""
        if self.enabled and self._tells(message):
            self.send("task-started", uuid=message.id)

    def settled(self, job: Job, message: TaskMessage, settlement: Settlement, runtime: float) -> None:
        """What became of a task that was received; `runtime` in seconds."""
        if self.enabled and self._tells(message):
            for kind, fields in outcome_events(settlement, job.started, runtime):
                self.send(kind, uuid=message.id, **fields)

    def found(self, message: TaskMessage, document: ResultDocument) -> None:
        """A worker has died after it stored this final result, and before it could tell."""
        if self.enabled and self._tells(message):
            kind, fields = result_event(document)
            self.send(kind, uuid=message.id, **fields)

    def _tells(self, message: TaskMessage) -> bool:
        try:
            return self._queue.find_task(message.task).send_events
        except NotRegistered:
            return True


def in_words(conf: Settings) -> str:
    """Which events are sent."""
    of_tasks = "of tasks" if conf.worker_send_task_events else "none of tasks (-E sends them)"
    freq = conf.worker_heartbeat_interval
    return f"{of_tasks}, {f'heartbeat every {freq:g} s' if freq else 'no heartbeat'}"


DEFAULT_FREQ = 2.0
"""Told in a heartbeat that was asked for, of a worker that sends none by itself."""


def reception(message: TaskMessage) -> dict[str, Any]:
    return {
        "uuid": message.id,
        "name": message.task,
        "args": saferepr(tuple(message.args)) if message.argsrepr is None else message.argsrepr,
        "kwargs": saferepr(message.kwargs) if message.kwargsrepr is None else message.kwargsrepr,
        "root_id": message.root_id,
        "parent_id": message.parent_id,
        "retries": message.retries,
        "eta": message.eta,
        "expires": message.expires,
    }


def outcome_events(settlement: Settlement, started: bool, runtime: float) -> list[Told]:
    """Those of an outcome; none where Celery tells nothing either, and of what was handed back unstarted."""
    told: list[Told] = []
    outcome: Outcome = settlement.outcome
    match outcome:
        case Succeeded(value):
            told = [("task-succeeded", {"result": saferepr(value), "runtime": runtime})]
        case Failed(exc, text):
            told = [("task-failed", {"exception": saferepr(exc), "traceback": text})]
        case GivenUp(exc):
            told = [("task-failed", {"exception": saferepr(exc), "traceback": None})]
        case RetryAsked(exc, _, text):
            told = [("task-retried", {"exception": saferepr(exc), "traceback": text})]
        case Rejected():
            told = rejection_events(outcome)
        case Revoked(reason):
            told = [("task-revoked", revocation_fields(reason))]
        case Interrupted() if settlement.record is not None:  # acknowledged early, so it does not come back
            told = [("task-revoked", revocation_fields("terminated"))]
        case Interrupted() if started:
            told = [("task-cancelled", {})]
        case Interrupted() | Ignored() | Replaced():
            pass
    return told


def rejection_events(outcome: Rejected) -> list[Told]:
    rejected: Told = ("task-rejected", {"requeue": outcome.requeue})
    if outcome.requeue:
        return [rejected]
    # To monitors a rejection ends nothing: they would show for ever that the task runs.
    return [("task-failed", {"exception": saferepr(outcome.exc), "traceback": None}), rejected]


def revocation_fields(reason: str) -> dict[str, Any]:
    terminated = reason == "terminated"
    # No signal is sent here; it is the one that Celery's `revoke(terminate=True)` has by default.
    signum = int(signal.SIGTERM) if terminated else None
    return {"terminated": terminated, "signum": signum, "expired": reason == "expired"}


def result_event(document: ResultDocument) -> Told:
    """The event of a stored final result; how long it took is not in there."""
    if document.status == states.SUCCESS:
        return "task-succeeded", {"result": saferepr(document.result), "runtime": None}
    exc = exception_of(document)
    if document.status == states.REVOKED:
        return "task-revoked", revocation_fields(str(exc))
    return "task-failed", {"exception": saferepr(exc), "traceback": document.traceback}
