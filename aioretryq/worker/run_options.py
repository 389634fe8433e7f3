"""What a task's options and the settings say of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Collection

    from aioretryq.config import Settings
    from aioretryq.task import Task


class RunOptions(Struct, frozen=True):
    """Looked up once, until the task or the settings change: it takes three calls to find an option in a setting."""

    acks_late: bool
    ignore_result: bool
    store_errors: bool
    dead_letter: bool | Collection[str]
    track_started: bool
    soft_time_limit: float | None
    time_limit: float | None

    @classmethod
    def of(cls, task: Task[Any, Any]) -> RunOptions:
        return cls(
            acks_late=task.acks_late,
            ignore_result=task.ignore_result,
            store_errors=task.store_errors_even_if_ignored,
            dead_letter=task.dead_letter,
            track_started=task.track_started,
            soft_time_limit=task.soft_time_limit,
            time_limit=task.time_limit,
        )

    @classmethod
    def of_unknown(cls, settings: Settings) -> RunOptions:
        """Of a task that nobody has defined here: somebody waits for it all the same."""
        ignored = settings.task_ignore_result
        return cls(
            acks_late=True,
            ignore_result=ignored,
            store_errors=True,
            dead_letter=False,
            track_started=False,
            soft_time_limit=None,
            time_limit=None,
        )

    def buries_failures(self, queue: str) -> bool:
        """Whether a failure in that queue goes to the dead letters."""
        wanted = self.dead_letter
        return wanted is True or (wanted is not False and queue in wanted)
