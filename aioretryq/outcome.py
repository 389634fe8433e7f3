"""How one run of a task can end: a closed set. The settlement matches on it exhaustively."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field


class Succeeded(Struct, frozen=True):
    value: Any


class Failed(Struct, frozen=True):
    """The body raised, and no retry is left or asked for."""

    exc: BaseException
    traceback: str | None = None


class RetryAsked(Struct, frozen=True):
    """Run again at `due` (unix seconds), perhaps with other arguments; `exc` is why."""

    exc: BaseException
    due: float
    traceback: str | None = None
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)


class Ignored(Struct, frozen=True):
    """Acknowledge, store nothing."""


class Replaced(Struct, frozen=True):
    """Another call, or a workflow (a `protocol.signature.Node`), does the task's work and stores its result."""

    node: Any


class Rejected(Struct, frozen=True):
    exc: BaseException
    requeue: bool


class GivenUp(Struct, frozen=True):
    """The runtime gives the message up, whatever its body might have done: a failure and a dead letter."""

    exc: BaseException
    reason: str


class Revoked(Struct, frozen=True):
    """Not to be run (any more); `reason` is `revoked`, `expired` or `terminated`."""

    reason: str

    @property
    def text(self) -> str:
        """What a running task is told when it is cancelled."""
        return "REVOKED"


class Interrupted(Struct, frozen=True):
    """The message goes back to the front of its queue, and no attempt is counted.

    `text`, what a running task is told when it is cancelled: SHUTDOWN (the worker is stopping) or LEASE_LOST
    (another worker has the message already).
    """

    text: str = "SHUTDOWN"


class Traced(Struct, frozen=True):
    """Another library has run the task, stored its result and sent what follows from it: only the message is left."""

    outcome: Succeeded | Failed | RetryAsked | Ignored | Rejected | Revoked


Settled = Succeeded | Failed | RetryAsked | Ignored | Replaced | Rejected | GivenUp | Revoked | Interrupted
Outcome = Settled | Traced
