"""Chords that others have opened: what a worker tells of them once."""

from __future__ import annotations

import threading

KEPT = 2000


class Adopted:
    """Which chords the backend was told the body of by this process, as far as that is remembered."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._groups: dict[str, None] = {}
        self._lock = threading.Lock()  # large messages are settled in threads

    def is_new(self, group_id: str) -> bool:
        """Whether it is the first part of the chord."""
        if group_id in self._groups:
            return False
        with self._lock:
            self._groups[group_id] = None
            if len(self._groups) > self._kept:
                del self._groups[next(iter(self._groups))]
        return True
