"""Messages that are here and have not started.

Nobody renews their leases: they start at once, or go back. That has to be so while a task blocks the event loop, too:
they are taken out from two sides, by the loop to start them, and by the thread that renews leases to give them back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.message import Delivery

FRESH = 1.0
"""Seconds for which they may start: so far back at most the news of what is revoked may be."""

Taken = tuple["Delivery", float]
"""A message, and when it was asked for (unix seconds)."""


class Ahead:
    """In the order in which they came. Any thread may call it."""

    def __init__(self, *, lease: float) -> None:
        self.fresh = min(FRESH, lease / 2)
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Delivery, float, float]] = deque()  # with the monotonic time since when

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def since(self) -> float | None:
        """When the oldest came, by the monotonic clock."""
        with self._lock:
            return self._waiting[0][2] if self._waiting else None

    def add(self, deliveries: Sequence[Delivery], asked: float) -> None:
        now = time.monotonic()
        with self._lock:
            self._waiting.extend((delivery, asked, now) for delivery in deliveries)

    def take(self, count: int) -> list[Taken]:
        """That many to start, oldest first; none if the oldest was here for too long."""
        with self._lock:
            if self._is_stale():
                return []
            return [self._waiting.popleft()[:2] for _ in range(min(count, len(self._waiting)))]

    def take_stale(self) -> list[Delivery]:
        """All, if the oldest was here for too long to start."""
        with self._lock:
            return self._drained() if self._is_stale() else []

    def take_all(self) -> list[Delivery]:
        with self._lock:
            return self._drained()

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """They were taken to be given back, and that is not done yet: they do not start any more."""
        with self._lock:
            self._waiting.extendleft((delivery, 0.0, float("-inf")) for delivery in reversed(deliveries))

    def _is_stale(self) -> bool:
        return bool(self._waiting) and self._waiting[0][2] <= time.monotonic() - self.fresh

    def _drained(self) -> list[Delivery]:
        found = [delivery for delivery, _, _ in self._waiting]
        self._waiting.clear()
        return found
