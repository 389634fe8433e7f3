"""Many deadlines with few timers: one for all of the same patience. One for each would cost 6 us, and two objects
that garbage collections look at."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Generic, Protocol, TypeVar

KEPT = 8
"""Timers that are kept while nobody needs them."""


class Waiting(Protocol):
    """Somebody with a deadline. `fail` may come when the wait is over already."""

    def fail(self, error: Exception, /) -> None: ...


W = TypeVar("W", bound=Waiting)


class Deadlines(Generic[W]):
    """Fails, with TimeoutError, those who wait too long."""

    def __init__(self) -> None:
        self._lines: dict[float, dict[W, float]] = {}  # until when, in this order
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def watch(self, waiting: W, seconds: float) -> float:
        """What `drop` has to be told."""
        moment = asyncio.get_running_loop().time() + seconds
        line = self._lines.get(seconds)
        if line is None:
            seconds = round(seconds, 1 if seconds > 1 else 2)  # of callers with a budget each has another one
            line = self._lines.get(seconds)
        if line is None:
            line = self._lines[seconds] = {}
            self._set(seconds, moment)
        line[waiting] = moment
        return seconds

    def drop(self, waiting: W, limit: float) -> None:
        """It waits no more; may come twice."""
        if (line := self._lines.get(limit)) is not None:
            line.pop(waiting, None)
            if not line and len(self._lines) > KEPT:  # else the timer is left for the next one
                del self._lines[limit]
                self._timers.pop(limit).cancel()

    def __len__(self) -> int:
        """How many timers there are."""
        return len(self._timers)

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._lines.clear()

    def _ring(self, limit: float) -> None:
        line, now = self._lines[limit], asyncio.get_running_loop().time()
        late = []
        for waiting, moment in line.items():
            if moment > now:
                self._set(limit, moment)
                break
            late.append(waiting)
        else:
            del self._lines[limit], self._timers[limit]
        for waiting in late:
            line.pop(waiting, None)  # whoever failed before may have dropped it
            waiting.fail(TimeoutError())

    def _set(self, limit: float, moment: float) -> None:
        # In a context of its own: that of the caller, with all that it holds, would be kept as long as others wait.
        loop = asyncio.get_running_loop()
        self._timers[limit] = loop.call_at(moment, self._ring, limit, context=contextvars.Context())
