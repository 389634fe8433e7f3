"""How one run of a task can end: a closed set. The settlement matches on it exhaustively."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Succeeded:
    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The body raised, and no retry is left or asked for."""

    exc: BaseException
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class RetryAsked:
    """Run again at `due` (unix seconds), perhaps with other arguments; `exc` is why."""

    exc: BaseException
    due: float
    traceback: str | None = None
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ignored:
    """Acknowledge, store nothing."""


@dataclass(frozen=True, slots=True)
class Rejected:
    exc: BaseException
    requeue: bool


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The runtime gives the message up, whatever its body might have done: a failure and a dead letter."""

    exc: BaseException
    reason: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """Not to be run (any more); `reason` is `revoked`, `expired` or `terminated`."""

    reason: str

    @property
    def text(self) -> str:
        """What a running task is told when it is cancelled."""
        return "REVOKED"


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The message goes back to the front of its queue, and no attempt is counted.

    `text`, what a running task is told when it is cancelled: SHUTDOWN (the worker is stopping) or LEASE_LOST
    (another worker has the message already).
    """

    text: str = "SHUTDOWN"


@dataclass(frozen=True, slots=True)
class Traced:
    """Another library has run the task, stored its result and sent what follows from it: only the message is left."""

    outcome: Succeeded | Failed | RetryAsked | Ignored | Rejected | Revoked


Settled = Succeeded | Failed | RetryAsked | Ignored | Rejected | GivenUp | Revoked | Interrupted
Outcome = Settled | Traced
