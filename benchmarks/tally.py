"""What the worker counts while it executes the tasks.

Everybody's worker executes the same functions of this module, so that all are measured at the same point, on the
clock of the process that does the work: neither its start nor the way its results are read is part of the time.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

from benchmarks import place

MEGABYTE = 2**20


class Tally:
    """Sees every task, knows the first and the last moment; after the last one it writes its file."""

    def __init__(self, path: str, expected: int) -> None:
        self._path = Path(path)
        self._expected = expected
        self._seen: set[int] = set()
        self._again = 0
        self._first = 0.0

    def start(self) -> None:
        self._first = self._first or time.perf_counter()

    def done(self, number: int) -> None:
        if number in self._seen:
            self._again += 1
            return
        self._seen.add(number)
        if len(self._seen) == self._expected:
            self._write(time.perf_counter())

    def _write(self, now: float) -> None:
        report = {"seconds": now - self._first, "memory": peak_memory(), "again": self._again}
        complete = self._path.with_suffix(".new")
        complete.write_text(json.dumps(report))
        complete.rename(self._path)


def peak_memory() -> float:
    """Megabytes this process has had in memory at most."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss is inherited from the parent on Linux
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / MEGABYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE


_tally = Tally(place.TALLY, place.TASKS)


def start() -> None:
    if place.TALLY:
        _tally.start()


def done(number: int) -> int:
    if place.TALLY:
        _tally.done(number)
    return number
