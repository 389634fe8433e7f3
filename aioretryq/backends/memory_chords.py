"""Chords of one process: what is counted, and who may send the body."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aioretryq.backends import chord_rules as rules
from aioretryq.message import OverdueChord

if TYPE_CHECKING:
    from aioretryq.message import ChordAddition, ChordClaim, ChordOpening, ChordPart


@dataclass(slots=True)
class _Chord:
    opened: float | None = None
    size: int | None = None  # None: not open yet
    parts: dict[tuple[str, int | None], bytes] = field(default_factory=dict)
    added: set[str] = field(default_factory=set)
    sender: str | None = None  # who may send the body,
    held: float = 0.0  # until then
    bound: str | None = None  # who may as the only one, whatever the time: its message comes back
    done: bool = False
    life: float = math.inf
    expires: float = math.inf
    # What somebody has to know who rescues it
    body: bytes = b""
    sending: float | None = None
    look: float = math.inf  # at that moment
    told: int = 0
    doomed: float | None = None  # when it expires, as it was when that was told
    verdict: str | None = None  # who tells that it has failed
    opener: str = ""

    @property
    def whole(self) -> int | None:
        return None if self.size is None else self.size + len(self.added)

    @property
    def complete(self) -> bool:
        return len(self.parts) == self.whole

    def seen(self) -> rules.Seen:
        return rules.Seen(
            counted=len(self.parts),
            size=self.whole,
            opened=self.opened or 0.0,
            expires=self.expires,
            life=self.life,
            held=self.held if self.sender is not None else None,
            bound=self.bound is not None,
            sending=self.sending,
        )


class MemoryChords:
    """Not locked by itself."""

    def __init__(self) -> None:
        self._chords: dict[str, _Chord] = {}
        self._watched: set[str] = set()
        self._cleaned = 0.0

    def open(self, opening: ChordOpening, now: float) -> None:
        chord = self._live(opening.group_id, now)
        if chord.done or chord.verdict is not None:
            if opening.token and chord.opener == opening.token:
                return
            chord = self._chords[opening.group_id] = _Chord()
        chord.opener, chord.told, chord.doomed = opening.token, 0, None
        chord.size = opening.size if opening.size is not None else chord.size
        chord.life, chord.expires = _life(opening.ttl), _end(opening.ttl, now)
        self._watch(opening.group_id, chord, opening.body, now)
        self._sending(chord, opening, now)

    def amend(self, opening: ChordOpening, now: float) -> bool:
        chord = self._chords.get(opening.group_id)
        if chord is None or chord.expires <= now or chord.opened is None or chord.verdict is not None:
            return False
        chord.size = opening.size if opening.size is not None else chord.size
        chord.life, chord.expires, chord.look = _life(opening.ttl), _end(opening.ttl, now), now
        self._sending(chord, opening, now)
        return True

    def add(self, addition: ChordAddition, now: float) -> None:
        fresh = addition.group_id not in self._chords
        chord = self._live(addition.group_id, now)
        if fresh:
            chord.expires = _end(addition.ttl, now)
        if not chord.done:
            chord.added.add(addition.task_id)

    def overdue(self, patience: float, limit: int, now: float) -> list[OverdueChord]:
        self.expire(now)
        found: list[OverdueChord] = []
        due = sorted((self._chords[gid].look, gid) for gid in self._watched if self._chords[gid].look <= now)
        for _, group_id in due:
            if len(found) == limit or sum(len(each.body) for each in found) > rules.ENOUGH:
                break
            chord = self._chords[group_id]
            seen = chord.seen()
            why = rules.why_overdue(seen, now, patience) if chord.body else None
            if why is None:
                chord.look = rules.next_look(seen, now, patience)
                continue
            chord.told += 1
            chord.look = rules.next_telling(chord.told, now, patience)
            chord.expires = max(chord.expires, rules.kept_until(chord.life, chord.told, now, patience))
            chord.doomed = chord.expires if why == "expired" else None
            found.append(
                OverdueChord(group_id, chord.body, why, chord.told, seen.counted, seen.size, now - seen.opened)
            )
        return found

    def room(self, group_id: str, now: float) -> float:
        """How many parts more it may count without being complete: none where it is closed."""
        chord = self._chords.get(group_id)
        if chord is None or chord.expires <= now:
            return math.inf
        if chord.done:
            return 0
        return math.inf if chord.whole is None else chord.whole - len(chord.parts) - 1

    def count(self, part: ChordPart, now: float) -> bool:
        chord = self._live(part.group_id, now)
        if chord.done:
            return False
        if part.why is not None:
            return self._rescue(chord, part, now)
        key = (part.task_id, part.index)
        new = key not in chord.parts
        chord.parts.setdefault(key, part.content)
        chord.life, chord.expires = _life(part.ttl), _end(part.ttl, now)
        chord.look = min(chord.look, now + chord.life / 2)
        if part.body and not chord.body and chord.verdict is None:
            self._watch(part.group_id, chord, part.body, now)
        if not chord.complete or not _claim(chord, part, now, new=new):
            return False
        if not part.returns:
            chord.look = chord.held
        return True

    def _rescue(self, chord: _Chord, part: ChordPart, now: float) -> bool:
        if part.why == "complete":
            return chord.complete and _claim(chord, part, now, new=False)
        if chord.sender not in (None, part.token) and chord.held > now:
            return False
        if chord.verdict is None:
            if not _is_overdue(chord, part, now):
                return False
            chord.verdict, chord.size = part.token, None
            chord.expires = max(chord.expires, _end(part.ttl, now))
            self._watched.discard(part.group_id)
        if chord.verdict != part.token:
            return False
        chord.sender, chord.held = part.token, now + part.hold
        return True

    def parts(self, group_id: str, now: float) -> list[bytes]:
        parts = self._live(group_id, now).parts
        ordered = sorted(parts.items(), key=lambda part: math.inf if part[0][1] is None else part[0][1])
        return [content for _, content in ordered]

    def hold(self, claim: ChordClaim, now: float, until: float) -> bool | None:
        chord = self._live(claim.group_id, now)
        if chord.done or (chord.sender != claim.token and chord.held > now):
            return False
        if chord.size is None and chord.verdict != claim.token:
            return None if chord.verdict is None else False
        chord.sender, chord.held = claim.token, until
        return True

    def close(self, claim: ChordClaim, now: float) -> None:
        chord = self._live(claim.group_id, now)
        if chord.sender == claim.token:
            life = rules.REMEMBERED if chord.verdict is None else rules.FAILED_REMEMBERED
            self._chords[claim.group_id] = _Chord(done=True, opener=chord.opener, expires=now + life)
            self._watched.discard(claim.group_id)

    def expire(self, now: float) -> int:
        over = [group_id for group_id, chord in self._chords.items() if chord.expires <= now]
        for group_id in over:
            del self._chords[group_id]
            self._watched.discard(group_id)
        return len(over)

    def _live(self, group_id: str, now: float) -> _Chord:
        chord = self._chords.get(group_id)
        if chord is None or chord.expires <= now:
            if now >= self._cleaned + 1:  # not for each of many
                self._cleaned = now
                self.expire(now)
            self._watched.discard(group_id)
            chord = self._chords[group_id] = _Chord(expires=now + rules.REMEMBERED)
        return chord

    def _watch(self, group_id: str, chord: _Chord, body: bytes, now: float) -> None:
        chord.opened, chord.body = now, body
        chord.look = rules.first_look(now, chord.life)
        self._watched.add(group_id)

    def _sending(self, chord: _Chord, opening: ChordOpening, now: float) -> None:
        chord.sending = None if opening.sending is None else now + opening.sending
        if chord.sending is not None:
            chord.look = chord.sending


def _claim(chord: _Chord, part: ChordPart, now: float, *, new: bool) -> bool:
    if chord.sender != part.token:
        taken = chord.sender is not None and chord.held > now
        if taken or (not new and chord.bound not in (None, part.token)):
            return False
    chord.sender, chord.held = part.token, now + part.hold
    if part.returns:
        chord.bound = part.token
    return True


def _is_overdue(chord: _Chord, part: ChordPart, now: float) -> bool:
    """Nobody has spoken for it since it was told."""
    if part.why == "unsent":
        return not chord.complete and chord.bound is None and chord.sending is not None and chord.sending <= now
    return chord.doomed is not None and chord.doomed == chord.expires


def _life(ttl: float | None) -> float:
    return math.inf if ttl is None else ttl


def _end(ttl: float | None, now: float) -> float:
    return now + _life(ttl)
