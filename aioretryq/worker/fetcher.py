"""Brings messages in: claims no more than can start at once or very soon, and waits without taking anything."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, TypeVar

import anyio

from aioretryq.errors import BrokerError, ConfigError, UnavailableError
from aioretryq.worker.lookahead import Lookahead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aioretryq.brokers.base import Broker
    from aioretryq.config import Settings
    from aioretryq.message import Claim
    from aioretryq.outage import Outage
    from aioretryq.worker.executor import Executor
    from aioretryq.worker.jobs import Jobs
    from aioretryq.worker.revocations import Revocations

logger = logging.getLogger("aioretryq.worker")

LOOK_AGAIN = 1.0
"""Seconds between claims while there is no room: the pace of revocations."""

LONGEST_WAIT = 300.0
"""Seconds between claims when nothing happens and nothing is due: brokers look for themselves much more often."""

GIVEN_BACK = 0.2
"""Seconds after which what waits here goes back: its turn was to come much sooner, and others may be idle."""

LAST_CLAIM = 1.0

REFUSED = 60.0
"""Seconds until a queue that the broker has refused is tried again."""

T = TypeVar("T")

ROUND_ROBIN, SORTED, AS_GIVEN = "round_robin", "sorted", "priority"
"""Which queue has the first turn, of messages with one priority; by kombu's names of `queue_order_strategy`."""


def queue_order(settings: Settings) -> str:
    """The transport option `queue_order_strategy`."""
    order = settings.broker_transport_options.get("queue_order_strategy") or ROUND_ROBIN
    if order not in (ROUND_ROBIN, SORTED, AS_GIVEN):
        known = ", ".join((ROUND_ROBIN, SORTED, AS_GIVEN))
        raise ConfigError(f"broker_transport_options['queue_order_strategy'] is one of {known}, not {order!r}.")
    return str(order)


Route = tuple[str, str, str]
"""Exchange, its kind, and routing key."""


class Fetcher:
    def __init__(
        self,
        broker: Broker,
        queues: list[str],
        jobs: Jobs,
        revocations: Revocations,
        *,
        outage: Outage,
        order: str = ROUND_ROBIN,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._broker = broker
        self._order = order
        self._queues = deque(sorted(queues) if order == SORTED else queues)
        self._routes: dict[str, Route] = {}
        self._waiting: anyio.CancelScope | None = None
        self._jobs = jobs
        self._revocations = revocations
        self._outage = outage
        self._clock = clock
        self._refused: dict[str, float] = {}  # until when a queue is left out
        self._claimed = False
        self._lookahead = Lookahead()
        self._started = 0  # jobs
        self._ahead = jobs.ahead
        self._given_back = min(GIVEN_BACK, self._ahead.fresh)
        self._came, self._went = anyio.Event(), anyio.Event()  # into it, and out of it

    async def run(self, executor: Executor) -> None:
        """Claim, start, wait; until cancelled, or until the jobs are no longer accepted."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._start_those_ahead, executor)
            while self._jobs.accepting:
                wanted = await self._some_wanted()
                claim, asked = await self._outage.survive(functools.partial(self._claim, wanted))
                self._revocations.note(claim.revoked, self._jobs)
                self._ahead.add(claim.deliveries, asked)
                if not self._jobs.accepting:  # the stop came while the claim was on its way
                    break  # `let_go` gives back what it has brought
                self._start(executor)
                if self._ahead:
                    self._came.set()
                if len(claim.deliveries) < wanted:  # there was no more: another claim would come back empty
                    await self._wait()
            group.cancel_scope.cancel()

    # -- what is here and has not started: see `Lookahead`

    async def _some_wanted(self) -> int:
        """How many messages to claim; after a second without room none, only to hear of revocations."""
        with anyio.move_on_after(LOOK_AGAIN):
            while not (wanted := self._wanted()):
                if self._ahead:
                    self._went = anyio.Event()
                    await self._went.wait()
                else:
                    await self._jobs.wait_room(LOOK_AGAIN)
        return wanted

    def _wanted(self) -> int:
        now = time.monotonic()
        self._lookahead.note_ended(self._started - len(self._jobs), now)
        return self._lookahead.wanted(self._jobs.room, len(self._ahead), now)

    def _start(self, executor: Executor) -> None:
        """As many as there is room for, oldest first."""
        for delivery, asked in self._ahead.take(self._jobs.room):
            self._jobs.start(delivery, asked, executor.run)
            self._started += 1

    async def _start_those_ahead(self, executor: Executor) -> None:
        while True:
            await self._came.wait()
            self._came = anyio.Event()
            while (since := self._ahead.since) is not None:
                left = since + self._given_back - time.monotonic()
                if left > 0:
                    await self._jobs.wait_room(left)
                    self._start(executor)
                else:
                    await self._outage.survive(self._give_back)
                self._went.set()

    async def _give_back(self) -> None:
        """To the front of their queues, in order. As long as the server is gone they stay here, for whoever notices
        first that it is back: the thread that renews leases may be sooner."""
        back = self._ahead.take_all()
        try:
            with anyio.CancelScope(shield=True):
                await self._broker.requeue(back)
        except BaseException:
            self._ahead.put_back(back)
            raise

    # -- from which queues; the next claim takes from those

    @property
    def queues(self) -> list[str]:
        return sorted(self._queues)

    def route(self, queue: str) -> Route:
        """How messages get into that queue, as far as this worker was told."""
        return self._routes.get(queue, (queue, "direct", queue))

    def add(self, queue: str, route: Route | None = None) -> None:
        if route is not None:
            self._routes[queue] = route
        self._refused.pop(queue, None)
        if queue not in self._queues:
            self._queues.append(queue)
            if self._order == SORTED:
                self._queues = deque(sorted(self._queues))
            self._look_now()

    def remove(self, queue: str) -> None:
        self._refused.pop(queue, None)
        if queue in self._queues:
            self._queues.remove(queue)
            self._look_now()

    def _look_now(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    async def _wait(self) -> None:
        with anyio.CancelScope() as self._waiting:
            if self._usable():
                wait = functools.partial(self._broker.wait, timeout=self._until_usable(LONGEST_WAIT))
                await self._outage.survive(lambda: self._on_usable(wait))
            else:
                await anyio.sleep(LOOK_AGAIN)
        self._waiting = None

    async def run_revocations(self) -> None:
        """Only hear which tasks are to be cancelled; until cancelled. For a worker that is stopping."""
        while True:
            claim, _ = await self._outage.survive(lambda: self._claim(0))
            self._revocations.note(claim.revoked, self._jobs)
            await anyio.sleep(LOOK_AGAIN)

    async def let_go(self) -> None:
        """Give back what has not started, and what a claim has taken whose reply was lost: the next claim does, and
        this is the last one."""
        try:
            await self._give_back()
        except UnavailableError as error:
            logger.error("%d messages come back when their leases end: %s", len(self._ahead), error)
        with contextlib.suppress(UnavailableError), anyio.move_on_after(LAST_CLAIM):
            claim = await self._broker.claim(list(self._queues), limit=0)
            self._revocations.note(claim.revoked, self._jobs)

    async def _claim(self, room: int) -> tuple[Claim, float]:
        """And when it was asked for: the leases last at least a lease from then."""
        asked = self._clock()
        # Shielded: a reply that nobody reads is a message that comes back only when its lease ends.
        with anyio.CancelScope(shield=True):
            claim = await self._on_usable(lambda queues: self._broker.claim(queues, limit=room if queues else 0))
        self._claimed = True
        if self._order == ROUND_ROBIN:
            self._queues.rotate(-1)  # no queue starves behind another
        return claim, asked

    # -- queues that the broker refuses: whoever can write to it must not end the worker by what is in one key

    def _usable(self) -> list[str]:
        if not self._refused:  # nearly always
            return list(self._queues)
        now = self._clock()
        return [queue for queue in self._queues if self._refused.get(queue, now) <= now]

    def _until_usable(self, longest: float) -> float:
        """Seconds until the first queue that is left out is tried again."""
        now = self._clock()
        return min([longest, *(until - now for until in self._refused.values() if until > now)])

    async def _on_usable(self, operation: Callable[[list[str]], Awaitable[T]]) -> T:
        while True:
            queues = self._usable()
            try:
                return await operation(queues)
            except BrokerError:
                bad = await self._find_refused(queues)
                # With nothing that ever worked it is the configuration that is wrong.
                if not bad or (not self._claimed and len(bad) == len(queues)):
                    raise
                for queue, error in bad.items():
                    self._refused[queue] = self._clock() + REFUSED
                    logger.error("Nothing is taken from queue %r, trying again in %.0f s: %s", queue, REFUSED, error)

    async def _find_refused(self, queues: list[str]) -> dict[str, BrokerError]:
        bad = {}
        for queue in queues:
            try:
                await self._broker.depth([queue])
            except BrokerError as error:
                bad[queue] = error
        return bad
