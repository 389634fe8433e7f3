"""Sending a task: how often, for how long, and whether what failed may have been sent all the same."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from aioretryq.backends.store import interval_policy
from aioretryq.batching import GroupCommit
from aioretryq.errors import AioretryqError, BrokerError, BrokerUnavailable, PublishError
from aioretryq.outage import Outage
from aioretryq.retry import PUBLISH_POLICY, IntervalPolicy, retrying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aioretryq.calling import CallOptions
    from aioretryq.config import Settings
    from aioretryq.message import Outgoing


NO_REPEAT = 50.0
"""Seconds after an attempt that may have succeeded until none is made any more: brokers recognise a repetition for
60 s, and one that is on its way needs a few."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one sending. It ends after `timeout + wait` seconds at the latest, whatever the server does."""

    policy: IntervalPolicy
    timeout: float
    wait: float
    """Seconds to wait for a broker that is gone, once the policy's retries are used up."""

    @classmethod
    def of(cls, call: CallOptions, settings: Settings) -> Terms:
        timeout = settings.task_publish_timeout if call.timeout is None else call.timeout
        wait = settings.task_publish_wait if call.wait is None else call.wait
        return cls(_policy(call, settings), timeout, wait)


def _policy(call: CallOptions, settings: Settings) -> IntervalPolicy:
    wanted = call.retry if call.retry is not None else settings.task_publish_retry
    if not wanted:
        return IntervalPolicy(max_retries=0)
    base = interval_policy(settings.task_publish_retry_policy, PUBLISH_POLICY, "task_publish_retry_policy")
    return base if call.retry_policy is None else interval_policy(call.retry_policy, base, "retry_policy")


class Publisher:
    """Sends the messages of a queue, in batches. `run()` must be running in a task that somebody owns."""

    def __init__(
        self,
        send: Callable[[list[Outgoing]], Awaitable[list[None]]],
        where: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._where = where
        self._clock = clock
        self._sends: GroupCommit[Outgoing, None] = GroupCommit(send, size=lambda message: len(message.body))
        self.outage = Outage(f"Broker {where}")

    async def run(self) -> None:
        await self._sends.run()

    async def publish(self, message: Outgoing, what: str, terms: Terms) -> None:
        """Returns when the broker has the message; PublishError says why not, and whether that is certain."""
        sending = _Sending(self._sends, message, self._clock)
        limit = terms.timeout + terms.wait
        try:
            with anyio.fail_after(limit):
                await self._persist(sending, terms)
        except TimeoutError as error:
            why = f"{self._where} has not confirmed it within {limit:g} s. {sending.failure or ''}".rstrip()
            raise sending.failed(what, why) from (sending.failure or error)
        except _TooLate as error:
            raise sending.failed(what, f"{sending.failure} {error}") from sending.failure
        except AioretryqError as error:
            raise sending.failed(what, str(error)) from error
        self.outage.up()

    async def _persist(self, sending: _Sending, terms: Terms) -> None:
        try:
            async for attempt in retrying(terms.policy, on=(BrokerUnavailable,)):
                with attempt:
                    return await sending.attempt()
        except BrokerUnavailable:
            # Many may wait: they share the probes, and all go on when one succeeds.
            with anyio.move_on_after(terms.wait):
                if terms.wait:
                    return await self.outage.survive(sending.attempt)
            raise


class _TooLate(AioretryqError):
    """Another attempt might double the task."""


class _Sending:
    """One message, and what became of the attempts."""

    def __init__(self, sends: GroupCommit[Outgoing, None], message: Outgoing, clock: Callable[[], float]) -> None:
        self._sends = sends
        self._message = message
        self._clock = clock
        self._maybe_sent = False
        self._in_doubt_since: float | None = None
        self.failure: BrokerUnavailable | None = None

    async def attempt(self) -> None:
        began = self._clock()
        if self._in_doubt_since is None:
            return await self._try(began)
        left = self._in_doubt_since + NO_REPEAT - began
        if left > 0:
            # Behind other batches it may not be on its way for long.
            with anyio.move_on_after(left):
                return await self._try(began)
        raise _TooLate(f"It is not tried again after {NO_REPEAT:g} s: the broker might not recognise the repetition.")

    async def _try(self, began: float) -> None:
        entry = self._sends.hand_in(self._message)
        try:
            await entry.answer
        except BrokerUnavailable as error:
            self.failure = error
            if error.maybe_done:
                self._maybe_sent = True
                if self._in_doubt_since is None:
                    self._in_doubt_since = began
            raise
        except BrokerError:
            raise  # refused: not sent
        except BaseException:  # cancelled, or the queue was closed
            self._maybe_sent |= entry.on_its_way
            raise

    def failed(self, what: str, why: str) -> PublishError:
        verdict = "may or may not have been sent" if self._maybe_sent else "was not sent"
        return PublishError(f"{what} {verdict}: {why}", maybe_sent=self._maybe_sent)
