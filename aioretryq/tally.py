"""Counts what goes wrong all the time, and tells it once a minute."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("aioretryq")

EVERY = 60.0


class Tally:
    """`text` has a %d for the number and a %s for why the last one. The first is told at once. Any thread may add."""

    def __init__(self, text: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = 0
        self._text = text
        self._clock = clock
        self._untold = 0
        self._why = ""
        self._next = float("-inf")

    def add(self, why: str, count: int = 1) -> None:
        self.total += count
        self._untold += count
        self._why = why
        if self._clock() >= self._next:
            self.tell()

    def tell(self) -> None:
        """What has not been told yet, without waiting for the minute to end."""
        untold, self._untold = self._untold, 0
        if untold:
            self._next = self._clock() + EVERY
            logger.warning(self._text, untold, self._why)
