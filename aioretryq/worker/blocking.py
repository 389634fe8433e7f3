"""Notices, from another thread, that a task blocks the worker's event loop, and says which and where."""

from __future__ import annotations

import asyncio
import linecache
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from aioretryq.worker.jobs import Jobs

logger = logging.getLogger("aioretryq.worker")

EVERY = 0.5
"""Seconds between two looks."""

NOTABLE = 1.0
"""Seconds from which on a blocked loop is worth a line in the log."""

AGAIN = 60.0
"""Seconds for which the same place is not named again."""


class BlockedLoop:
    """Sends the loop a beat and looks how long it takes to be answered. Made in the loop's own thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        jobs: Jobs,
        *,
        limit: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._jobs = jobs
        self._limit = limit
        self._clock = clock
        self._thread = threading.get_ident()
        self._answered = clock()
        self._named: dict[str, float] = {}
        self._reported = False
        self.past_limit = False

    async def watch(self) -> None:
        """In another loop than the one that is watched; until cancelled."""
        while True:
            asked = self._clock()
            self._loop.call_soon_threadsafe(self._answer)
            await asyncio.sleep(EVERY)
            while self._answered < asked:
                self._judge(self._clock() - asked)
                await asyncio.sleep(EVERY)
            self._free(self._answered - asked)

    def _answer(self) -> None:
        self._answered = self._clock()

    def _judge(self, seconds: float) -> None:
        if seconds >= NOTABLE and not self._reported:
            self._report(seconds)
        if seconds >= self._limit and not self.past_limit:
            self.past_limit = True
            logger.error(
                "The event loop has been blocked for %.0f s (worker_blocked_limit) by %s at %s: leases are renewed "
                "no more, and the %d messages held here go to other workers",
                seconds,
                self._who(),
                where(sys._current_frames().get(self._thread)),
                len(self._jobs),
            )

    def _free(self, seconds: float) -> None:
        if self._reported or self.past_limit:
            logger.warning("The event loop is free again; it was blocked for %.1f s", seconds)
        self._reported = self.past_limit = False

    def _report(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._thread)
        place = where(frame)
        now = self._clock()
        if now - self._named.get(place, -AGAIN) < AGAIN:
            return  # no line at its end either
        self._named[place] = now
        self._reported = True
        logger.warning(
            "The event loop has been blocked for %.1f s by %s at %s; make it a plain `def` task, which runs in a "
            "thread, or await what it waits for",
            seconds,
            self._who(),
            place,
        )

    def _who(self) -> str:
        running = asyncio.current_task(self._loop)
        job = next((job for job in self._jobs.all() if job.task is running), None)
        return "something" if job is None else f"task {job.name}"


def where(frame: FrameType | None) -> str:
    """`file:line in function: source` of the innermost frame of the user's, as far as that can be told."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    if not frames:
        return "an unknown place"
    foreign = [found for found in frames if _package(found) not in _RUNTIME]
    # What is not installed is the user's own for certain; what a library does was called from there.
    own = [found for found in foreign if "site-packages" not in found.f_code.co_filename]
    found = next(iter(own or foreign or frames))
    path, line = found.f_code.co_filename, found.f_lineno
    source = linecache.getline(path, line).strip()
    return f"{path}:{line} in {found.f_code.co_name}" + (f": {source}" if source else "")


_RUNTIME = (sys.stdlib_module_names - {"__main__"}) | {"aioretryq", "anyio", "uvloop", "click"}


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
