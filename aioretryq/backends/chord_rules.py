"""When a chord is overdue, where it is this process that decides (in Redis, overdue_chords.lua does)."""

from __future__ import annotations

import math

from msgspec import Struct

FIRST_LOOK = 10.0
"""Seconds after which an open chord is looked at first."""

LONGEST = 120.0
"""Seconds between looks at most."""

LONGEST_MARGIN = 3600.0


class Seen(Struct, frozen=True):
    """A chord that is open: `held` and `sending` are moments, as are `opened` and `expires`; `bound` whether somebody
    who comes back has the right to send its body."""

    counted: int
    size: int | None  # with those that were added
    opened: float
    expires: float = math.inf
    life: float = math.inf
    held: float | None = None
    bound: bool = False
    sending: float | None = None


def first_look(opened: float, life: float, sending: float | None) -> float:
    """When to look at a chord that was opened then."""
    return opened + sending if sending is not None else opened + min(FIRST_LOOK, life / 2)


def margin_of(life: float, patience: float) -> float:
    """Seconds before the end of its life in which a chord is expired."""
    return min(max(life / 10, 3 * patience), life / 2, LONGEST_MARGIN)


def why_overdue(seen: Seen, now: float, patience: float) -> str | None:
    if seen.bound or (seen.held is not None and seen.held > now):
        return None
    if seen.counted == seen.size:
        return "complete"
    if seen.sending is not None and seen.sending <= now:
        return "unsent"
    if seen.size is not None and seen.expires - now <= margin_of(seen.life, patience):
        return "expired"
    return None


def next_look(seen: Seen, now: float, patience: float) -> float:
    """When to look again at one that is not overdue."""
    if seen.held is not None and seen.held > now:
        return seen.held
    moments = [now + min(max(patience, (now - seen.opened) / 4), LONGEST)]
    if seen.sending is not None:
        moments.append(seen.sending)
    if seen.size is not None:
        moments.append(seen.expires - margin_of(seen.life, patience))
    return min(moment for moment in moments if moment > now or moment is moments[0])


def next_telling(told: int, life: float, now: float, patience: float) -> float:
    """When to look again at one that was told for the `told`th time: less and less often, for messages may wait for
    long. But it must not be forgotten before one is run: from now on it lives for the margin at least."""
    pause: float = patience * 2 ** min(told - 1, 4)
    return now + max(patience, min(pause, margin_of(life, patience) / 2))
