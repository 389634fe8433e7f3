"""Dead letters: what is kept of a message that nobody will run any more. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from aioretryq.dead_messages import ERRORS_HEADER
from aioretryq.errors import BackendError, BrokerError, NotRegistered, ProtocolError, Reject, WorkerLostError
from aioretryq.message import DeadEntry
from aioretryq.protocol.deadletter import DeadLetter, encode_dead_letter, entry_id
from aioretryq.protocol.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.message import Delivery, TaskMessage
    from aioretryq.worker.settlement import Attempted

UNDECODABLE = "undecodable"
REJECTED = "rejected"
UNKNOWN = "unknown task"
DELIVERIES = "too many deliveries"
REFUSED = "settlement refused"
BROKEN = "broken workflow"

BURIED: dict[type[Exception], str] = {
    Reject: REJECTED,
    NotRegistered: UNKNOWN,
    WorkerLostError: DELIVERIES,
    ProtocolError: BROKEN,
    BackendError: REFUSED,
    BrokerError: REFUSED,
}
"""Failures that always come with a dead letter, by what is stored as their result."""

ERRORS_KEPT = 50
ERROR_LENGTH = 500


def dead_letter(reason: str, delivery: Delivery, worker: str, now: float, error: BaseException) -> DeadLetter:
    """What can be said of any message, decodable or not."""
    return DeadLetter(
        reason=reason,
        queue=delivery.queue,
        payload=delivery.body,
        time=now,
        worker=worker,
        priority=delivery.priority,
        error=saferepr(error),
        deliveries=delivery.deliveries,
        interruptions=delivery.interruptions,
    )


def burial(
    reason: str,
    attempted: Attempted,
    now: float,
    tag: Callable[[], str],
    exc: BaseException,
    traceback: str | None = None,
) -> DeadEntry:
    """The entry of a message whose task is known by name."""
    message = attempted.message
    begun = reason not in (UNKNOWN, DELIVERIES)
    letter = dataclasses.replace(
        dead_letter(reason, attempted.delivery, attempted.worker, now, exc),
        task=message.task,
        task_id=message.id,
        traceback=traceback,
        attempts=message.retries + begun,
        errors=_errors_of(message),
    )
    return entry(letter, tag())


def entry(letter: DeadLetter, unique: str) -> DeadEntry:
    return DeadEntry(entry_id(letter.time, unique), encode_dead_letter(letter))


def why_failed(attempted: Attempted) -> str:
    return "retries exhausted" if attempted.message.retries else "failed"


def with_error(attempted: Attempted, exc: BaseException, now: float) -> dict[str, Any]:
    """The headers of a retry: with what this attempt has died of, if that may be asked for one day."""
    message = attempted.message
    if not attempted.bury_failures:
        return message.headers
    error = {
        "attempt": message.retries + 1,
        "time": now,
        "worker": attempted.worker,
        "error": saferepr(exc, ERROR_LENGTH),
    }
    return {**message.headers, ERRORS_HEADER: [*_errors_of(message), error][-ERRORS_KEPT:]}


def _errors_of(message: TaskMessage) -> list[dict[str, Any]]:
    found = message.headers.get(ERRORS_HEADER)
    return [error for error in found if isinstance(error, dict)] if isinstance(found, list) else []
