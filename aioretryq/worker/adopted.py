"""Chords that others have opened: what a worker tells of them once."""

from __future__ import annotations

KEPT = 2000


class Adopted:
    """The chords that the backend knows the body of, for a part of them was counted, as far as that is remembered."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._groups: dict[str, None] = {}

    def __contains__(self, group_id: object) -> bool:
        return group_id in self._groups

    def add(self, group_id: str) -> None:
        self._groups[group_id] = None
        if len(self._groups) > self._kept:
            del self._groups[next(iter(self._groups))]
