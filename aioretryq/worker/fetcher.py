"""Brings messages in: claims no more than there is room for, and waits without taking anything."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, TypeVar

import anyio

from aioretryq.errors import BrokerError, ConfigError, UnavailableError

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
"""Seconds between claims when nothing happens: the net under lost wake-ups, and the pace of revocations."""

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

    async def run(self, executor: Executor) -> None:
        """Claim, start, wait; until cancelled, or until the jobs are no longer accepted."""
        while self._jobs.accepting:
            room = await self._jobs.wait_room(LOOK_AGAIN)
            claim, asked = await self._outage.survive(functools.partial(self._claim, room))
            self._revocations.note(claim.revoked, self._jobs)
            await self._start(claim, asked, executor)
            if len(claim.deliveries) < room:  # there was no more: another claim would come back empty
                await self._wait()

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
                wait = functools.partial(self._broker.wait, timeout=LOOK_AGAIN)
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
        """Give back what a claim has taken whose reply was lost: the next claim does, and this is the last one."""
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

    async def _start(self, claim: Claim, asked: float, executor: Executor) -> None:
        if not self._jobs.accepting:
            # The stop came while the claim was on its way.
            try:
                with anyio.CancelScope(shield=True):
                    await self._broker.requeue(claim.deliveries)
            except UnavailableError as error:
                logger.error("%d messages come back when their leases end: %s", len(claim.deliveries), error)
            return
        for delivery in claim.deliveries:
            self._jobs.start(delivery, asked, executor.run)
