"""The worker's line for each finished attempt. Fields for log processors are in `extra` as `data`."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aioretryq.outcome import Failed, Ignored, Interrupted, Outcome, Rejected, RetryAsked, Revoked, Succeeded
from aioretryq.protocol.saferepr import saferepr

if TYPE_CHECKING:
    from aioretryq.message import TaskMessage
    from aioretryq.task import Task

logger = logging.getLogger("aioretryq.worker")


def log_outcome(task: Task[Any, Any], message: TaskMessage, outcome: Outcome, runtime: float) -> None:
    level, text = describe(task, outcome)
    if not logger.isEnabledFor(level):
        return
    attempt = message.retries + 1
    logger.log(
        level,
        "Task %s[%s] %s runtime=%.3fs attempt=%d",
        message.task,
        message.id,
        text,
        runtime,
        attempt,
        exc_info=outcome.exc if isinstance(outcome, Failed) and level == logging.ERROR else None,
        extra={
            "data": {
                "name": message.task,
                "id": message.id,
                "outcome": type(outcome).__name__,
                "runtime": runtime,
                "attempt": attempt,
            }
        },
    )


def describe(task: Task[Any, Any], outcome: Outcome) -> tuple[int, str]:
    """(level, text) of an outcome. Expected errors (`throws`) are no alarm."""
    match outcome:
        case Succeeded():
            return logging.INFO, "succeeded"
        case Failed(exc):
            if isinstance(exc, task.throws):
                return logging.INFO, f"raised expected: {saferepr(exc)}"
            return logging.ERROR, f"failed: {saferepr(exc)}"
        case RetryAsked(exc, due):
            at = datetime.fromtimestamp(due, UTC).isoformat(timespec="milliseconds")
            return logging.WARNING, f"will be retried at {at}: {saferepr(exc)}"
        case Ignored():
            return logging.INFO, "ignored"
        case Rejected(exc, requeue):
            return logging.WARNING, f"rejected, {'requeued' if requeue else 'dead-lettered'}: {saferepr(exc)}"
        case Revoked(reason):
            return logging.WARNING, f"was not run to its end: {reason}"
        case Interrupted():
            return logging.WARNING, "interrupted, back in its queue"
