"""Brings messages in: claims no more than there is room for, and waits without taking anything."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

import anyio

from aioretryq.errors import UnavailableError
from aioretryq.message import Claim, parse_revocation
from aioretryq.outcome import Revoked

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.brokers.base import Broker
    from aioretryq.outage import Outage
    from aioretryq.worker.executor import Executor
    from aioretryq.worker.jobs import Jobs

logger = logging.getLogger("aioretryq.worker")

LOOK_AGAIN = 1.0
"""Seconds between claims when nothing happens: the net under lost wake-ups, and the pace of revocations."""

LAST_CLAIM = 1.0
REVOCATIONS_KEPT = 50_000


class Revocations:
    """Ids that are not to run. The oldest are dropped first: by then their messages are long gone."""

    def __init__(self, limit: int = REVOCATIONS_KEPT) -> None:
        self._ids: dict[str, None] = {}
        self._limit = limit

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._ids

    def add(self, task_id: str) -> None:
        self._ids[task_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]


class Fetcher:
    def __init__(
        self,
        broker: Broker,
        queues: list[str],
        jobs: Jobs,
        revocations: Revocations,
        *,
        outage: Outage,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._broker = broker
        self._queues = deque(queues)
        self._jobs = jobs
        self._revocations = revocations
        self._outage = outage
        self._clock = clock

    async def run(self, executor: Executor) -> None:
        """Claim, start, wait; until cancelled, or until the jobs are no longer accepted."""
        while self._jobs.accepting:
            room = await self._jobs.wait_room(LOOK_AGAIN)
            claim, asked = await self._outage.survive(functools.partial(self._claim, room))
            self._note_revocations(claim)
            await self._start(claim, asked, executor)
            if len(claim.deliveries) < room:  # there was no more: another claim would come back empty
                await self._outage.survive(lambda: self._broker.wait(list(self._queues), timeout=LOOK_AGAIN))

    async def run_revocations(self) -> None:
        """Only hear which tasks are to be cancelled; until cancelled. For a worker that is stopping."""
        while True:
            claim, _ = await self._outage.survive(lambda: self._claim(0))
            self._note_revocations(claim)
            await anyio.sleep(LOOK_AGAIN)

    async def let_go(self) -> None:
        """Give back what a claim has taken whose reply was lost: the next claim does, and this is the last one."""
        with contextlib.suppress(UnavailableError), anyio.move_on_after(LAST_CLAIM):
            claim = await self._broker.claim(list(self._queues), limit=0)
            self._note_revocations(claim)

    async def _claim(self, room: int) -> tuple[Claim, float]:
        """And when it was asked for: the leases last at least a lease from then."""
        asked = self._clock()
        # Shielded: a reply that nobody reads is a message that comes back only when its lease ends.
        with anyio.CancelScope(shield=True):
            claim = await self._broker.claim(list(self._queues), limit=room)
        self._queues.rotate(-1)  # no queue starves behind another
        return claim, asked

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

    def _note_revocations(self, claim: Claim) -> None:
        for notice in claim.revoked:
            task_id, terminate = parse_revocation(notice)
            self._revocations.add(task_id)
            for job in self._jobs.all() if terminate else ():
                if job.task_id == task_id:
                    logger.warning("Task %s is cancelled: it was revoked", job.name)
                    job.cancel(Revoked("terminated"))
