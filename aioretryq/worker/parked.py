"""What this worker has left with the broker until its time has come: an approximation, for those who inspect it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioretryq.worker.job_info import info

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.worker.jobs import Job

KEPT = 1000


class ParkedMessage(Struct, frozen=True):
    due: float
    eta: str | None
    priority: int
    info: dict[str, Any]


class Parked:
    """Remembers a message only as long as it is parked, and at most `limit` of them.

    Another worker may take one when it is due; this one does not hear of that.
    """

    def __init__(self, node: str, limit: int = KEPT, *, clock: Callable[[], float] = time.time) -> None:
        self._node = node
        self._entries: dict[str, ParkedMessage] = {}
        self._limit = limit
        self._clock = clock

    def note(self, job: Job, due: float) -> None:
        message = job.message
        if message is None:
            return
        if len(self._entries) >= self._limit:
            self._drop_due()
        if len(self._entries) < self._limit:
            shown = info(job, message, self._node)
            self._entries[message.id] = ParkedMessage(due, message.eta, message.priority, shown)

    def gone(self, task_id: str) -> None:
        """It is here again."""
        if self._entries:
            self._entries.pop(task_id, None)

    def entries(self) -> list[ParkedMessage]:
        """The next one first."""
        self._drop_due()
        return sorted(self._entries.values(), key=lambda entry: entry.due)

    def _drop_due(self) -> None:
        now = self._clock()
        self._entries = {name: entry for name, entry in self._entries.items() if entry.due > now}
