"""What the workers leave behind: each task's number, how often it ran, when it first started.

Every contender's worker runs the functions of `benchmarks.tasks`, which write here. So all are measured at the same
point, on the clock of the process that does the work, and a task that was lost or ran twice is seen.

A file for each worker process, mapped into memory: nothing is sent, and the harness can look on without asking.
Layout: a double for the first start of any, one for the last end, one for each task's first start, a byte for each
task's number of runs. The clock is the monotonic one, which all processes of a machine share.
"""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from benchmarks import place

if TYPE_CHECKING:
    from collections.abc import Iterator

DOUBLE = 8
HEAD = 2


def size_of(tasks: int) -> int:
    return (HEAD + tasks) * DOUBLE + tasks


def mapped(path: Path, tasks: int) -> memoryview:
    """The file, created if need be, as memory."""
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.ftruncate(file, size_of(tasks))
        return memoryview(mmap.mmap(file, size_of(tasks)))
    finally:
        os.close(file)


class Page:
    """What one process wrote, or writes."""

    def __init__(self, view: memoryview, tasks: int) -> None:
        times = (HEAD + tasks) * DOUBLE
        self.head = view[: HEAD * DOUBLE].cast("d")
        self.starts = view[HEAD * DOUBLE : times].cast("d")
        self.runs = view[times:]

    def start(self, number: int) -> None:
        now = monotonic()
        if not self.head[0]:
            self.head[0] = now
        if not self.starts[number]:
            self.starts[number] = now

    def done(self, number: int) -> None:
        self.runs[number] += 1
        self.head[1] = monotonic()


class Ledger:
    """The harness's view of all pages of a run."""

    def __init__(self, folder: Path, tasks: int) -> None:
        self._folder = folder
        self._tasks = tasks
        self._pages: dict[Path, Page] = {}

    def pages(self) -> list[Page]:
        for path in self._folder.glob("*.proof"):
            if path not in self._pages and path.stat().st_size == size_of(self._tasks):
                self._pages[path] = Page(mapped(path, self._tasks), self._tasks)
        return list(self._pages.values())

    def ran(self) -> int:
        """How many ran; one that ran in two processes counts twice here, `verdict` finds it."""
        return sum(self._tasks - bytes(page.runs).count(0) for page in self.pages())

    def verdict(self, upto: int | None = None) -> str | None:
        """Why this run has no figure; None if each of the tasks ran once. With `upto`, at least that many did."""
        counts = [sum(runs) for runs in zip(*[bytes(page.runs) for page in self.pages()], strict=True)]
        missing = counts.count(0) if counts else self._tasks
        again = sum(count > 1 for count in counts)
        if again:
            return f"{again:,} of {self._tasks:,} tasks ran more than once"
        if missing > self._tasks - (self._tasks if upto is None else upto):
            return f"{missing:,} of {self._tasks:,} tasks did not run"
        return None

    def began(self) -> float:
        """When the first task started; 0 if none has."""
        return min((page.head[0] for page in self.pages() if page.head[0]), default=0.0)

    def ended(self) -> float:
        return max((page.head[1] for page in self.pages()), default=0.0)

    def starts(self) -> list[float]:
        """When each task first started, by number."""
        return [min((at for at in each if at), default=0.0) for each in self._columns()]

    def _columns(self) -> Iterator[tuple[float, ...]]:
        return zip(*[page.starts for page in self.pages()], strict=True)


_own: Page | None = None
_opening = threading.Lock()


def own_page() -> Page:
    """This process's page, a new one after a fork. Some workers are threads: they share it."""
    global _own
    if _own is None:
        with _opening:
            if _own is None:
                _own = Page(mapped(Path(place.PROOF, f"{os.getpid()}.proof"), place.TASKS), place.TASKS)
    return _own


def forget() -> None:
    global _own
    _own = None


os.register_at_fork(after_in_child=forget)


def recorded(number: int) -> bool:
    """Whether the number is a task's: warm-ups have negative ones."""
    return 0 <= number < place.TASKS and bool(place.PROOF)


def start(number: int) -> None:
    if recorded(number):
        own_page().start(number)


def done(number: int) -> int:
    if recorded(number):
        own_page().done(number)
    return number
