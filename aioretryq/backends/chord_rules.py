"""When a chord is overdue, where it is this process that decides (in Redis, overdue_chords.lua does)."""

from __future__ import annotations

import math

from msgspec import Struct

from aioretryq.errors import BackendError

FIRST_LOOK = 10.0
"""Seconds after which an open chord is looked at first."""

LONGEST = 300.0
"""Seconds between looks at most."""

LONGEST_MARGIN = 3600.0

REMEMBERED = 300.0
"""Seconds for which a closed chord is not begun anew by a part that comes late."""

FAILED_REMEMBERED = 86400.0
"""The same of one that failed before all its parts had returned: the others may wait in a queue for long."""

ENOUGH = 2**20
"""Bytes of bodies in one answer."""


class Seen(Struct, frozen=True):
    """A chord that is open: `held` and `sending` are moments, as are `opened` and `expires`; `life` is what it was
    given last; `bound` whether somebody who comes back has the right to send its body."""

    counted: int
    size: int | None  # with those that were added
    opened: float
    expires: float = math.inf
    life: float = math.inf
    held: float | None = None
    bound: bool = False
    sending: float | None = None


def first_look(opened: float, life: float) -> float:
    """When to look at a chord that was opened then."""
    return opened + min(FIRST_LOOK, life / 2)


def margin_of(life: float, patience: float) -> float:
    """Seconds before the end of its life in which a chord is expired."""
    return min(max(life / 10, 3 * patience), life / 2, LONGEST_MARGIN)


def why_overdue(seen: Seen, now: float, patience: float) -> str | None:
    if seen.held is not None and seen.held > now:
        return None
    if not seen.bound:
        if seen.counted == seen.size:
            return "complete"
        if seen.sending is not None and seen.sending <= now:
            return "unsent"
    # Whatever is missing, be it the message of whoever has the right: nobody can do anything about it later.
    return "expired" if seen.expires - now <= margin_of(seen.life, patience) else None


def next_look(seen: Seen, now: float, patience: float) -> float:
    """When to look again at one that is not overdue."""
    if seen.held is not None and seen.held > now:
        return seen.held
    moments = [now + min(max(patience, (now - seen.opened) / 4), LONGEST)]
    if seen.sending is not None and seen.sending > now:
        moments.append(seen.sending)
    moments.append(max(now, seen.expires - margin_of(seen.life, patience)))
    return min(moments)


def next_telling(told: int, now: float, patience: float) -> float:
    """When to look again at one that was told for the `told`th time: less and less often, for messages may wait for
    long."""
    pause: float = patience * 2 ** min(told - 1, 4)
    return now + pause


def kept_until(life: float, told: int, now: float, patience: float) -> float:
    """Until then it is not forgotten: what was told now has been told again twice."""
    return max(now + margin_of(life, patience), now + 3 * (next_telling(told, now, patience) - now))


def check_size(group_id: str, size: int, limit: int | None) -> None:
    """BackendError if the parts of a chord are larger, all together."""
    if limit is not None and size > limit:
        raise BackendError(
            f"The parts of chord {group_id} have returned more than {limit:,} bytes, which no message of its body "
            "can hold: let them return where their results are, not what they are."
        )
