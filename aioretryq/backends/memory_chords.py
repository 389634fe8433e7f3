"""Chords of one process: what is counted, and who may send the body."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aioretryq.message import ChordClaim, ChordOpening, ChordPart

REMEMBERED = 300.0
"""Seconds for which a closed chord is not begun anew by a part that comes late."""


@dataclass(slots=True)
class _Chord:
    size: int | None = None  # None: not open yet
    parts: dict[tuple[str, int | None], bytes] = field(default_factory=dict)
    sender: str | None = None  # who may send the body,
    held: float = 0.0  # until then
    bound: str | None = None  # who may as the only one, whatever the time: its message comes back
    done: bool = False
    expires: float = math.inf


class MemoryChords:
    """Not locked by itself."""

    def __init__(self) -> None:
        self._chords: dict[str, _Chord] = {}

    def open(self, opening: ChordOpening, now: float) -> None:
        chord = self._live(opening.group_id, now)
        if chord.done:
            chord = self._chords[opening.group_id] = _Chord()
        chord.size = opening.size
        chord.expires = _end(opening.ttl, now)

    def count(self, part: ChordPart, now: float) -> bool:
        chord = self._live(part.group_id, now)
        if chord.done:
            return False
        key = (part.task_id, part.index)
        new = key not in chord.parts
        chord.parts.setdefault(key, part.content)
        chord.expires = _end(part.ttl, now)
        if chord.size != len(chord.parts):
            return False
        if chord.sender != part.token:
            taken = chord.sender is not None and chord.held > now
            if taken or (not new and chord.bound not in (None, part.token)):
                return False
        chord.sender, chord.held = part.token, now + part.hold
        if part.returns:
            chord.bound = part.token
        return True

    def parts(self, group_id: str, now: float) -> list[bytes]:
        parts = self._live(group_id, now).parts
        ordered = sorted(parts.items(), key=lambda part: math.inf if part[0][1] is None else part[0][1])
        return [content for _, content in ordered]

    def hold(self, claim: ChordClaim, now: float, until: float) -> bool:
        chord = self._live(claim.group_id, now)
        if chord.done or chord.size is None or (chord.sender != claim.token and chord.held > now):
            return False
        chord.sender, chord.held = claim.token, until
        return True

    def close(self, claim: ChordClaim, now: float) -> None:
        chord = self._live(claim.group_id, now)
        if chord.sender == claim.token:
            self._chords[claim.group_id] = _Chord(done=True, expires=now + REMEMBERED)

    def expire(self, now: float) -> int:
        over = [group_id for group_id, chord in self._chords.items() if chord.expires <= now]
        for group_id in over:
            del self._chords[group_id]
        return len(over)

    def _live(self, group_id: str, now: float) -> _Chord:
        chord = self._chords.get(group_id)
        if chord is None or chord.expires <= now:
            self.expire(now)
            chord = self._chords[group_id] = _Chord(expires=now + REMEMBERED)
        return chord


def _end(ttl: float | None, now: float) -> float:
    return math.inf if ttl is None else now + ttl
