"""Sending a task: how often, for how long, and whether what failed may have been sent all the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anyio
from msgspec import Struct

from aioretryq.backends.store import interval_policy
from aioretryq.batching import GroupCommit
from aioretryq.deadlines import Deadlines
from aioretryq.errors import AioretryqError, BrokerError, BrokerUnavailable, NotOpenError, PublishError
from aioretryq.message import Outgoing
from aioretryq.outage import Outage
from aioretryq.retry import PUBLISH_POLICY, IntervalPolicy, retrying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aioretryq.batching import Submission
    from aioretryq.calling import CallOptions
    from aioretryq.config import Settings


NO_REPEAT = 50.0
"""Seconds after an attempt that may have succeeded until none is made any more: brokers recognise a repetition for
60 s, and one that is on its way needs a few."""


class Terms(Struct, frozen=True):
    """Of one sending. It ends after `timeout + wait` seconds at the latest, whatever the server does."""

    policy: IntervalPolicy
    timeout: float
    wait: float
    """Seconds to wait for a broker that is gone, once the policy's retries are used up."""

    @property
    def limit(self) -> float:
        return self.timeout + self.wait

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


Parcel = Sequence[Outgoing]
"""Messages that travel together, and have one fate: to keep account of each of very many would cost too much."""


def _size(parcel: Parcel) -> int:
    return len(parcel[0].body) if len(parcel) == 1 else sum(len(message.body) for message in parcel)


class Publisher:
    """Sends the messages of a queue, in batches. `run()` must be running in a task that somebody owns."""

    def __init__(
        self,
        send: Callable[[Parcel], Awaitable[object]],
        where: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._where = where
        self._clock = clock
        self._sends: GroupCommit[Parcel, None] = GroupCommit(self._commit, size=_size)
        self._deadlines: Deadlines[Submission[Any, Any]] = Deadlines()
        self.outage = Outage(f"Broker {where}")

    async def run(self) -> None:
        try:
            await self._sends.run()
        finally:
            self._deadlines.close()

    async def publish(self, message: Outgoing, what: str, terms: Terms) -> None:
        """Returns when the broker has the message; PublishError says why not, and whether that is certain."""
        await self.sent(self.begin([message], what, terms, at_once=True))

    def begin(self, messages: Parcel, what: str, terms: Terms, *, at_once: bool = False) -> Sending:
        """Put messages into the next batch, all together. What becomes of them has to be asked of `sent`; `at_once`
        means that this is the next thing that the caller does."""
        try:
            sending = Sending(self._sends, messages, what, terms, self._clock, at_once=at_once)
        except NotOpenError as error:
            raise PublishError(f"{what} was not sent: {error}", maybe_sent=False) from error
        sending.deadline = time.monotonic() + terms.limit
        sending.limit = self._deadlines.watch(sending.entry, terms.limit)
        return sending

    async def sent(self, sending: Sending) -> None:
        """As `publish`. Nearly all messages come through at once: nothing is prepared for those that do not."""
        try:
            await self._sends.answered(sending.entry)
        except (AioretryqError, TimeoutError):
            await self._insist(sending)
        finally:
            self._deadlines.drop(sending.entry, sending.limit)
        self.outage.up()

    async def _commit(self, parcels: list[Parcel]) -> list[None]:
        await self._send(parcels[0] if len(parcels) == 1 else [message for parcel in parcels for message in parcel])
        return [None] * len(parcels)

    async def _insist(self, sending: Sending) -> None:
        """The first attempt has failed; whether it is to be repeated is decided here."""
        limit = sending.terms.limit
        try:
            with anyio.fail_after(max(0.0, sending.deadline - time.monotonic())):
                await self._persist(sending, sending.terms)
        except TimeoutError as error:
            why = f"{self._where} has not confirmed it within {limit:g} s. {sending.failure or ''}".rstrip()
            raise sending.failed(why) from (sending.failure or error)
        except _TooLate as error:
            raise sending.failed(f"{sending.failure} {error}") from sending.failure
        except AioretryqError as error:
            raise sending.failed(str(error)) from error

    async def _persist(self, sending: Sending, terms: Terms) -> None:
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


class Sending:
    """A parcel, and what became of the attempts; the first one is under way."""

    __slots__ = (
        *("_began", "_clock", "_in_doubt_since", "_maybe_sent", "_messages", "_sends", "_what"),
        *("deadline", "entry", "failure", "limit", "terms"),
    )

    def __init__(
        self,
        sends: GroupCommit[Parcel, None],
        messages: Parcel,
        what: str,
        terms: Terms,
        clock: Callable[[], float],
        *,
        at_once: bool = False,
    ) -> None:
        self._sends = sends
        self._messages = messages
        self._what = what
        self._clock = clock
        self._maybe_sent = False
        self._in_doubt_since: float | None = None
        self._began: float | None = clock()  # until the first attempt has been looked at
        self.entry = sends.hand_in(messages, at_once=at_once)
        self.deadline = self.limit = 0.0
        self.terms = terms
        self.failure: BrokerUnavailable | None = None

    @property
    def may_have_arrived(self) -> bool:
        return self._maybe_sent or self.entry.on_its_way

    async def attempt(self) -> None:
        if self._began is not None:
            began, self._began = self._began, None
            return await self._answer(self.entry, began)
        began = self._clock()
        if self._in_doubt_since is None:
            return await self._answer(self._sends.hand_in(self._messages), began)
        left = self._in_doubt_since + NO_REPEAT - began
        if left > 0:
            # Behind other batches it may not be on its way for long.
            with anyio.move_on_after(left):
                return await self._answer(self._sends.hand_in(self._messages), began)
        raise _TooLate(f"It is not tried again after {NO_REPEAT:g} s: the broker might not recognise the repetition.")

    async def _answer(self, entry: Submission[Parcel, None], began: float) -> None:
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
        except BaseException:  # cancelled, too late, or the queue was closed
            self._maybe_sent |= entry.on_its_way
            raise

    def failed(self, why: str) -> PublishError:
        verdict = "may or may not have been sent" if self._maybe_sent else "was not sent"
        return PublishError(f"{self._what} {verdict}: {why}", maybe_sent=self._maybe_sent)
