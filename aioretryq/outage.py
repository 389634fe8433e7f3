"""Servers that are gone for a while: work waits for them, and the log says so once, and once that they are back."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from aioretryq.errors import UnavailableError
from aioretryq.retry import RECONNECT_POLICY, retrying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger("aioretryq")
T = TypeVar("T")


class Outage:
    """Of one server, as seen by all that use it here. One log line when it begins, one when it ends."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._since: float | None = None

    async def survive(self, operation: Callable[[], Awaitable[T]]) -> T:
        """The operation's value, however long the server is gone: only cancellation ends the attempts."""
        async for attempt in retrying(RECONNECT_POLICY, on=(UnavailableError,), on_retry=self.down):
            with attempt:
                value = await operation()
                self.up()
                return value
        raise AssertionError("a retry loop ends by returning or raising")

    def down(self, error: BaseException, retries: int = 0, delay: float = 0.0) -> None:
        if self._since is None:
            self._since = self._clock()
            logger.warning("%s is gone, trying again until it is back: %s", self._name, error)

    def up(self) -> None:
        if self._since is not None:
            seconds, self._since = self._clock() - self._since, None
            logger.warning("%s is back after %.1f s", self._name, seconds)
