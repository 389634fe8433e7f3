"""Rates and time limits of tasks in one worker: those of the tasks, unless remote control has changed them here."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from aioretryq.protocol.envelope import marks
from aioretryq.rates import Slots, check_rate, parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.config import Settings
    from aioretryq.context import Request
    from aioretryq.task import Task

AT_ONCE = 0.01
"""Seconds; a task that has to wait no longer than that starts at once, and those after it wait for it."""


class Limits:
    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        check_rate(settings.task_default_rate_limit, "Setting 'task_default_rate_limit'")
        self._settings = settings
        self._clock = clock
        self._slots = Slots()
        self._rates: dict[str, Any] = {}
        self._per_second: dict[str, float | None] = {}  # spares nearly every message the look at its task's options
        self._times: dict[str, tuple[float, float]] = {}

    # -- rates

    def rate_of(self, task: Task[Any, Any]) -> Any:
        """The task's rate, as it was written."""
        if task.name in self._rates:
            return self._rates[task.name]
        return task.rate_limit

    def set_rate(self, task: Task[Any, Any], value: Any) -> None:
        """From the next message on: those that wait for their slot keep it."""
        check_rate(value, "The rate")
        self._rates[task.name] = value
        self._per_second.pop(task.name, None)
        self._slots.forget(task.name)

    def slot(self, task: Task[Any, Any], body: bytes) -> float | None:
        """When the message may start, if that is not yet.

        A message that has had to wait has its slot written on it: whichever worker gets it then does not ask again.
        """
        try:
            rate = self._per_second[task.name]
        except KeyError:
            ignored = self._settings.worker_disable_rate_limits
            rate = self._per_second[task.name] = None if ignored else parse_rate(self.rate_of(task))
        if rate is None or "slot" in marks(body):
            return None
        now = self._clock()
        slot = self._slots.take(task.name, rate, now)
        return slot if slot > now + AT_ONCE else None

    # -- time limits

    def set_times(self, task: Task[Any, Any], *, hard: float | None, soft: float | None) -> None:
        """Of every run that begins from now on, whatever its message says; None for no limit."""
        self._times[task.name] = (math.inf if hard is None else hard, math.inf if soft is None else soft)

    def apply(self, request: Request) -> None:
        """Give a run the limits that were set here for its task, if any were."""
        if self._times and (found := self._times.get(request.task or "")) is not None:
            request.time_limit, request.soft_time_limit = found

    def times(self) -> list[float | None]:
        """The default hard and soft limit."""
        return [self._settings.task_time_limit, self._settings.task_soft_time_limit]
