"""The worker's line for each finished attempt. Fields for log processors are in `extra` as `data`.

And a bound for lines that whoever can send messages could make us write without end.
"""

from __future__ import annotations

import logging
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aioretryq.outcome import (
    Failed,
    GivenUp,
    Ignored,
    Interrupted,
    Rejected,
    Replaced,
    RetryAsked,
    Revoked,
    Settled,
    Succeeded,
)
from aioretryq.protocol.saferepr import inline, saferepr

if TYPE_CHECKING:
    from aioretryq.message import TaskMessage
    from aioretryq.worker.settlement import Settlement

logger = logging.getLogger("aioretryq.worker")


def log_outcome(
    throws: tuple[type[BaseException], ...], message: TaskMessage, settlement: Settlement, runtime: float
) -> None:
    outcome = settlement.outcome
    if isinstance(outcome, Succeeded) and not logger.isEnabledFor(logging.INFO):  # nearly all, where it is off
        return
    level, text = describe(throws, outcome)
    if not logger.isEnabledFor(level):
        return
    attempt = message.retries + 1
    logger.log(
        level,
        "Task %s[%s] %s runtime=%.3fs attempt=%d",
        inline(message.task),
        inline(message.id),
        f"{text}, kept as dead letter {settlement.dead.id}" if settlement.dead is not None else text,
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


_WELL = {Succeeded: "succeeded", Ignored: "ignored", Replaced: "replaced by another call"}


def describe(throws: tuple[type[BaseException], ...], outcome: Settled) -> tuple[int, str]:
    """(level, text) of an outcome. Expected errors (`throws`) are no alarm."""
    match outcome:
        case Succeeded() | Ignored() | Replaced():
            return logging.INFO, _WELL[type(outcome)]
        case Failed(exc):
            if isinstance(exc, throws):
                return logging.INFO, f"raised expected: {saferepr(exc)}"
            return logging.ERROR, f"failed: {saferepr(exc)}"
        case RetryAsked(exc, due):
            at = datetime.fromtimestamp(due, UTC).isoformat(timespec="milliseconds")
            return logging.WARNING, f"will be retried at {at}: {saferepr(exc)}"
        case Rejected(exc, requeue):
            return logging.WARNING, f"rejected{' and requeued' if requeue else ''}: {saferepr(exc)}"
        case GivenUp(exc, reason):
            return logging.ERROR, f"given up ({reason}): {saferepr(exc)}"
        case Revoked(reason):
            return logging.WARNING, f"was not run to its end: {reason}"
        case Interrupted(text):
            return logging.WARNING, f"interrupted ({text}), back in its queue"


REPEATS = 10
"""Lines of one kind that are written until the next summary."""


class Repeated:
    """Writes the first few lines of each kind; `sum_up` says how many more there were, and starts afresh."""

    def __init__(self, limit: int = REPEATS) -> None:
        self._limit = limit
        self._seen: Counter[str] = Counter()

    def log(self, level: int, kind: str, text: str, *args: object) -> None:
        if self.admits(kind):
            logger.log(level, text, *args)

    def admits(self, kind: str) -> bool:
        """Whether one more line of that kind may be written; it counts as such."""
        self._seen[kind] += 1
        return self._seen[kind] <= self._limit

    def sum_up(self) -> None:
        for kind, count in self._seen.items():
            if count > self._limit:
                logger.warning("%d more: %s", count - self._limit, kind)
        self._seen.clear()
