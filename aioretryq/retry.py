"""When to try again: policies are values, and one awaitable loop serves everything that retries.

The same `retrying()` drives publishing, result backends and reconnecting, and user code:

    async for attempt in retrying(RetryPolicy(max_retries=5, backoff=0.5), on=(OSError,)):
        with attempt:
            return await fetch()
"""

from __future__ import annotations

import asyncio
import math
import random as random_module
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

Random = random_module.Random
_random = random_module.Random()


class Policy(Protocol):
    """Decides how long to wait before each retry."""

    @property
    def max_retries(self) -> float | None:
        """How often to try again after the first attempt; None is for ever."""
        ...

    def next_delay(self, retries: int, random: Random) -> float:
        """Seconds to wait before retry number `retries` (0 is the first)."""
        ...


@dataclass(frozen=True, slots=True)
class PlannedRetry:
    """What is known beforehand of one retry: bounds and mean of its delay, in seconds."""

    attempt: int
    minimum: float
    maximum: float
    expected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Celery's task retry options as one value (celery/utils/time.py, get_exponential_backoff_interval).

    With `backoff` (seconds; True is 1) the delay before retry n (from 0) is `backoff * 2**n`, at most
    `backoff_max`; with `jitter` it is drawn evenly from 0 to that (full jitter). Without `backoff` it is
    always `delay`.
    """

    max_retries: int | None = 3
    delay: float = 180.0
    backoff: float | bool = False
    backoff_max: float = 600.0
    jitter: bool = True

    def ceiling(self, retries: int) -> float:
        """The longest delay possible before retry number `retries` (from 0)."""
        if not self.backoff:
            return float(self.delay)
        # ldexp overflows past 2**1023: a task with max_retries=None gets there
        factor = math.ldexp(1.0, min(max(retries, 0), 1000))
        return min(float(self.backoff) * factor, float(self.backoff_max))

    def next_delay(self, retries: int, random: Random = _random) -> float:
        ceiling = self.ceiling(retries)
        return random.uniform(0.0, ceiling) if self.backoff and self.jitter else ceiling

    def preview(self, attempts: int | None = None) -> list[PlannedRetry]:
        """The schedule, one row a retry: `max_retries` rows, or `attempts` (10 if retries never end)."""
        count = attempts if attempts is not None else self.max_retries
        jittered = bool(self.backoff) and self.jitter
        rows = []
        for retry in range(10 if count is None else count):
            top = self.ceiling(retry)
            rows.append(PlannedRetry(retry + 1, 0.0 if jittered else top, top, top / 2 if jittered else top))
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalPolicy:
    """kombu's retry policy for connections: `interval_start`, plus `interval_step` each time, capped.

    The first retry comes after `interval_start` seconds; no wait is longer than `interval_max`.
    """

    max_retries: float | None = 3
    interval_start: float = 0.0
    interval_step: float = 0.2
    interval_max: float = 1.0

    def next_delay(self, retries: int, random: Random = _random) -> float:
        return min(self.interval_start + self.interval_step * retries, self.interval_max)


PUBLISH_POLICY = IntervalPolicy()
"""Default of `task_publish_retry_policy`."""

RESULT_POLICY = IntervalPolicy(max_retries=20, interval_start=0, interval_step=1, interval_max=1)
"""Default `retry_policy` of result backends (celery/backends/base.py)."""

RECONNECT_POLICY = RetryPolicy(max_retries=None, backoff=0.05, backoff_max=1.0)
"""For servers that are to come back, however long it takes, and then be noticed at once."""


class Attempt:
    """One pass of a retry loop: a context manager that swallows what is to be retried."""

    def __init__(self, retries: int, on: tuple[type[BaseException], ...], *, last: bool) -> None:
        self.retries = retries
        self.last = last
        self.error: BaseException | None = None
        self._on = on

    def reset(self) -> None:
        """The operation got somewhere (a connection stood for a while): should it fail now, count afresh."""
        self.retries = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> bool:
        self.error = exc
        return isinstance(exc, self._on) and not isinstance(exc, asyncio.CancelledError) and not self.last


class retrying:
    """Attempts of an operation, with the policy's waits between them: `async for attempt in retrying(...)`.

    The loop ends after the first attempt whose block does not raise. An exception that is not in `on`, and
    the exception of the last attempt, leave the block as they are. `on_retry(error, retries, delay)` is
    called before each wait. Cancellation is never swallowed. `sleep` and `random` are there for tests.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        on: tuple[type[BaseException], ...] = (Exception,),
        on_retry: Callable[[BaseException, int, float], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        random: Random = _random,
    ) -> None:
        self._policy = policy
        self._on = on
        self._on_retry = on_retry
        self._sleep = sleep
        self._random = random
        self._attempt: Attempt | None = None

    # A class, not an async generator: leaving the loop early (`return` inside it) is the normal case, and
    # a half-run generator would have to be closed by the event loop afterwards.
    def __aiter__(self) -> Self:
        self._attempt = None
        return self

    async def __anext__(self) -> Attempt:
        previous = self._attempt
        retries = 0
        if previous is not None:
            if previous.error is None:
                raise StopAsyncIteration
            retries = previous.retries
            delay = self._policy.next_delay(retries, self._random)
            if self._on_retry is not None:
                self._on_retry(previous.error, retries, delay)
            await self._sleep(delay)
            retries += 1
        limit = self._policy.max_retries
        self._attempt = Attempt(retries, self._on, last=limit is not None and retries >= limit)
        return self._attempt
