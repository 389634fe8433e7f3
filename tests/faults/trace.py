"""What tasks did, as they told it themselves, whatever the queue believes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is start, end, retry or cancelled; `time` is that of the machine's clock that never goes back."""

    kind: str
    task_id: str
    pid: int
    time: float
    attempts: int
    deliveries: int
    interruptions: int


class Trace:
    """Events in the order they were written; `read` takes up what has come since."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self._read_to = 0
        self.events: list[Event] = []
        self.starts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()

    def read(self) -> Trace:
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            fresh = file.read()
        complete = fresh[: fresh.rfind(b"\n") + 1]
        self._read_to += len(complete)
        for line in complete.decode().splitlines():
            self._add(_event(line))
        return self

    def _add(self, event: Event) -> None:
        self.events.append(event)
        if event.kind == "start":
            self.starts[event.task_id] += 1
        elif event.kind == "end":
            self.ends[event.task_id] += 1

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    def running_in(self, pid: int) -> set[str]:
        """What a process has begun and not ended, as far as it could still write."""
        running = set()
        for event in self.events:
            if event.pid == pid:
                (running.add if event.kind == "start" else running.discard)(event.task_id)
        return running


def _event(line: str) -> Event:
    kind, task_id, pid, time, attempts, deliveries, interruptions = line.split(" ")
    return Event(kind, task_id, int(pid), float(time), int(attempts), int(deliveries), int(interruptions))
