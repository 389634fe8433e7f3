"""How often a task may start in one worker. Pure: the clock is passed in."""

from __future__ import annotations

import math
from typing import Any

from aioretryq.errors import ConfigError

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


class Slots:
    """When each task may start next. A slot that was given is kept: whoever has one does not ask again."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    def take(self, task: str, rate: float, now: float) -> float:
        """The moment from which the call may start: `now`, or later."""
        slot = max(now, self._next.get(task, now))
        self._next[task] = slot + 1.0 / rate
        return slot

    def forget(self, task: str) -> None:
        """Begin afresh: the rate of the task has changed."""
        self._next.pop(task, None)
