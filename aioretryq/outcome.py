"""How one run of a task can end: a closed set. The settlement matches on it exhaustively."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from aioretryq.value import value


@value
class Succeeded:
    value: Any


@value
class Failed:
    """The body raised, and no retry is left or asked for."""

    exc: BaseException
    traceback: str | None = None


@value
class RetryAsked:
    """Run again at `due` (unix seconds), perhaps with other arguments; `exc` is why."""

    exc: BaseException
    due: float
    traceback: str | None = None
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)


@value
class Ignored:
    """Acknowledge, store nothing."""


@value
class Rejected:
    exc: BaseException
    requeue: bool


@value
class GivenUp:
    """The runtime gives the message up, whatever its body might have done: a failure and a dead letter."""

    exc: BaseException
    reason: str


@value
class Revoked:
    """Not to be run (any more); `reason` is `revoked`, `expired` or `terminated`."""

    reason: str

    @property
    def text(self) -> str:
        """What a running task is told when it is cancelled."""
        return "REVOKED"


@value
class Interrupted:
    """The message goes back to the front of its queue, and no attempt is counted.

    `text`, what a running task is told when it is cancelled: SHUTDOWN (the worker is stopping) or LEASE_LOST
    (another worker has the message already).
    """

    text: str = "SHUTDOWN"


@value
class Traced:
    """Another library has run the task, stored its result and sent what follows from it: only the message is left."""

    outcome: Succeeded | Failed | RetryAsked | Ignored | Rejected | Revoked


Settled = Succeeded | Failed | RetryAsked | Ignored | Rejected | GivenUp | Revoked | Interrupted
Outcome = Settled | Traced
