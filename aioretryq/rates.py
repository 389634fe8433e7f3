"""Limits of tasks: above all how often one may start in one worker. Pure: the clock is passed in."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aioretryq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_rate(value: Any) -> float | None:
    """Starts per second of `10/s`, `100/m`, `5/h`, `10` or 10; None for no limit (None, 0, an empty text).

    Raises ValueError for anything else.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        number, slash, unit = value.partition("/")
        if slash and unit not in UNITS:
            raise ValueError(f"{value!r} has no unit out of s, m, h")
        rate = float(number) / (UNITS[unit] if slash else 1.0)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        rate = float(value)
    else:
        raise ValueError(f"{value!r} is not a rate")
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"{value!r} is not a rate")
    return rate or None


def check_rate(value: Any, whose: str) -> Any:
    """The value, or ConfigError if it is no rate."""
    try:
        parse_rate(value)
    except ValueError as error:
        raise ConfigError(f"{whose} is a rate like '10/s', '100/m', '5/h' or a number per second: {error}.") from None
    return value


def check_limits(hard: Any, soft: Any, whose: str) -> None:
    """ConfigError if the soft time limit would come after the hard one, and so never."""
    if hard and soft and soft > hard:
        raise ConfigError(f"{whose}: soft_time_limit {soft} is longer than time_limit {hard}; make it shorter.")


AHEAD = 5.0
"""Seconds for which slots are given in advance: so long it takes at most until another rate, or another worker, has
an effect on what waits."""

OFFER_AFTER, OFFER_AT_LATEST = AHEAD / 2, 30.0
"""Seconds for which a message waits that has got no slot; longer where very many wait."""

OFFERS = 200.0
"""So many of these are offered in a second, at most, or twice the rate: they must not keep a worker busy."""

AT_ONCE = 0.01
"""Seconds; a task that has to wait no longer than that starts at once, and those after it wait for it."""

LATE = 0.25
"""Seconds after which a slot is free for others: a second worker has its message, or it was revoked."""

KEPT = 1.0
"""Seconds for which a slot that was not used may still be: with several workers many would be lost, and more would
be bursts."""

EARLY = 0.5
"""Seconds; what comes earlier than that, because the broker's clock is ahead of ours, has to wait once more."""

MOST_AHEAD = 3600.0
"""Seconds by which a broker's clock may be ahead; a mark that says more is wrong."""

NO_BUCKET = 0
"""On a message that has to ask again; buckets have other numbers."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message waits: until when by the broker's clock, and what is written on it."""

    due: float
    marks: dict[str, float]


class Bucket:
    """The starts of one task in one worker, at one rate.

    A slot counts only in the bucket that gave it: other workers, and this one at another rate, have other numbers.
    """

    def __init__(self, rate: float, number: int) -> None:
        self._every = 1.0 / rate
        self._number = number
        self._pace = 1.0 / max(OFFERS, 2 * rate)
        self._next = -math.inf
        self._offer = -math.inf
        self._lead = 0.0
        self._given: OrderedDict[float, None] = OrderedDict()  # the earliest first

    def ask(self, marks: Mapping[str, float], now: float) -> Place | None:
        """Where the message with these marks has to wait; None if it starts now."""
        if now < marks.get("due", now) < now + MOST_AHEAD:  # it is here, so the broker's clock says more than ours
            self._lead = max(self._lead, marks["due"] - now)
        own = self._own(marks)
        if own is not None and own > now + EARLY:
            return self._place(own, self._number)
        slot = max(now, self._next)
        at_once = slot <= now + AT_ONCE
        if own is not None or self._left_over(now) or at_once:
            if own is not None:
                del self._given[own]
            self._next = max(self._next, (slot if at_once else now) + self._every)
            return None
        if slot <= now + AHEAD:
            self._next = slot + self._every
            self._given[slot] = None
            return self._place(slot, self._number)
        delay = min(OFFER_AT_LATEST, max(OFFER_AFTER, slot - AHEAD - now))
        self._offer = max(now + delay, self._offer + self._pace)
        return self._place(self._offer, NO_BUCKET)

    def _place(self, moment: float, bucket: int) -> Place:
        due = moment + self._lead
        return Place(due, {"slot": moment, "bucket": bucket, "due": due})

    def _own(self, marks: Mapping[str, float]) -> float | None:
        """The slot that the message has here, if it still counts."""
        slot = marks.get("slot")
        return slot if marks.get("bucket") == self._number and slot in self._given else None

    def _left_over(self, now: float) -> bool:
        """Take the earliest slot that nobody has come for, if there is one."""
        kept = max(KEPT, self._every)  # at a low rate a busy worker comes later than a second
        while self._given and (first := next(iter(self._given))) <= now - LATE:
            del self._given[first]
            if first >= now - kept:
                return True
        return False
