"""How many messages a worker claims beyond what it has room for: as many as are going to start very soon.

Without that a worker of tiny tasks would stand idle for each claim. But what waits here cannot be taken by a worker
that is idle, so it must be clear that its turn comes at once: that is measured, and long tasks never give reason to
hold any.
"""

from __future__ import annotations

from collections import deque

SOON = 0.05
"""Seconds: what has ended within the last ones tells what will start within the next ones."""

FEWEST = 4
"""Fewer that end in this time are long tasks: a claim takes next to nothing of their time."""

LARGEST = 500
"""Messages in one claim: the server does nothing else meanwhile, 7 us for each."""


class Lookahead:
    """Decides by how many jobs have ended lately. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._ended: deque[tuple[float, int]] = deque()  # when it was noted, and how many up to then

    def note_ended(self, total: int, now: float) -> None:
        """How many jobs have ended up to now."""
        if not self._ended or total != self._ended[-1][1]:
            self._ended.append((now, total))
        # The last one before that time stays: from there it is counted.
        while len(self._ended) > 1 and self._ended[1][0] <= now - SOON:
            self._ended.popleft()

    def ahead(self, now: float) -> int:
        """How many may wait here for a place."""
        if not self._ended:
            return 0
        (since, before), (_, total) = self._ended[0], self._ended[-1]
        ended = (total - before) * SOON / max(now - since, SOON)
        return min(int(ended), LARGEST) if ended >= FEWEST else 0

    def wanted(self, room: int, waiting: int, now: float) -> int:
        """How many to claim, where `waiting` are here and not started, and there is `room` for more to run."""
        ahead, free = self.ahead(now), room - waiting
        if free > 0:
            return min(free + ahead, LARGEST)
        # By halves: a claim of many costs less than many claims, and the other half lasts until it is here.
        return ahead - waiting if waiting <= ahead // 2 else 0
