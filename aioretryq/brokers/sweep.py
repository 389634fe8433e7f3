"""When a sweep may put back the messages whose lease has ended, and when it has to keep still."""

from __future__ import annotations

from typing import NamedTuple


class Sweeps(NamedTuple):
    """What a place knows of its sweeps, in unix seconds: when the last one was, and until when none puts back."""

    last: float | None = None
    quiet_until: float = 0.0


def sweep(before: Sweeps, now: float, lease: float) -> tuple[bool, Sweeps]:
    """Whether a sweep at `now` may put messages back, and what the place knows afterwards.

    A late one may not: when nobody swept for half a lease, nobody could renew either, and it takes a lease
    until everybody who lives has done so. A clock that was set back counts as late too: what was noted means
    nothing any more.
    """
    late = before.last is None or not 0 <= now - before.last <= lease / 2
    after = Sweeps(now, now + lease if late else before.quiet_until)
    return now >= after.quiet_until, after
