"""Tasks that another library runs: it judges what came of them, stores results and sends what follows.

The worker keeps everything around a run: leases, early acknowledgement, revocation, the stop, dead letters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    import anyio

    from aioretryq.context import Request
    from aioretryq.message import TaskMessage
    from aioretryq.outcome import Outcome
    from aioretryq.protocol.result import ResultDocument


class ForeignTask(Task[Any, Any]):
    """A task whose attempts are another library's."""

    async def attempt(
        self,
        message: TaskMessage,
        request: Request,
        *,
        threads: anyio.CapacityLimiter,
        started: Callable[[], bool],
    ) -> Outcome:
        """Run it once: `Traced` for what the library has stored and sent already.

        `threads` admits plain functions; `started()` is called when the body is about to begin, in whatever thread,
        and may say no to a run that nobody waits for any more. Cancelled, it raises CancelledError as soon as it can.
        """
        raise NotImplementedError

    async def conclude(self, message: TaskMessage, request: Request, outcome: Outcome) -> bool:
        """The worker has decided what becomes of a run: revoked, given up. True if the library has stored that."""
        raise NotImplementedError

    def is_done(self, message: TaskMessage, found: ResultDocument) -> bool:
        """Whether nothing is left to do of a redelivered message whose final result is stored."""
        raise NotImplementedError
