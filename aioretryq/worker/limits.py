"""Rates and time limits of tasks in one worker: those of the tasks, unless remote control has changed them here."""

from __future__ import annotations

import math
import secrets
import time
from typing import TYPE_CHECKING, Any

from aioretryq.protocol.envelope import marks
from aioretryq.rates import Bucket, check_rate, parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.config import Settings
    from aioretryq.context import Request
    from aioretryq.rates import Place
    from aioretryq.task import Task


class Limits:
    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        check_rate(settings.task_default_rate_limit, "Setting 'task_default_rate_limit'")
        self._settings = settings
        self._clock = clock
        self._rates: dict[str, Any] = {}
        self._buckets: dict[str, Bucket | None] = {}  # spares nearly every message the look at its task's options
        self._times: dict[str, tuple[float, float]] = {}

    # -- rates

    def rate_of(self, task: Task[Any, Any]) -> Any:
        """The task's rate, as it was written."""
        if task.name in self._rates:
            return self._rates[task.name]
        return task.rate_limit

    def set_rate(self, task: Task[Any, Any], value: Any) -> None:
        """From now on; slots that were given at the old rate are void."""
        check_rate(value, "The rate")
        self._rates[task.name] = value
        self._buckets.pop(task.name, None)

    def place(self, task: Task[Any, Any], body: bytes) -> Place | None:
        """Where the message has to wait, if it may not start yet: it has a slot of this worker then, or none."""
        try:
            bucket = self._buckets[task.name]
        except KeyError:
            bucket = self._buckets[task.name] = self._bucket(task)
        return None if bucket is None else bucket.ask(marks(body), self._clock())

    def _bucket(self, task: Task[Any, Any]) -> Bucket | None:
        rate = None if self._settings.worker_disable_rate_limits else parse_rate(self.rate_of(task))
        return None if rate is None else Bucket(rate, 1 + secrets.randbits(48))

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
