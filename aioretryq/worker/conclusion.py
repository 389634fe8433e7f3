"""Brings a settlement to its end: calls errbacks, and sends the bodies of the chords that are complete with it.

The order is safe to crash in: results, then the parts of chords, then errbacks and bodies; with what is sent the
message is acknowledged. Whoever gets it after a crash begins anew, and finds what was stored and counted.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from aioretryq.errors import BrokerError
from aioretryq.exchanging import ToExchange
from aioretryq.worker.bodies import Bodies, Body
from aioretryq.worker.followups import NOTHING, Following
from aioretryq.worker.settler import Completion, Verdict
from aioretryq.workflows import errbacks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.message import Outgoing
    from aioretryq.worker.followups import Followups
    from aioretryq.worker.jobs import Job, Jobs
    from aioretryq.worker.settlement import Attempted, Settlement
    from aioretryq.worker.settler import Settler

logger = logging.getLogger("aioretryq.worker")


class _Course:
    """What is left to settle of a message: its own, and the bodies of chords that are complete with it."""

    def __init__(self, job: Job, settlement: Settlement, attempted: Attempted) -> None:
        self.job = job
        self.held = job if job.held else None
        self.attempted = attempted
        self.own = settlement
        self.bodies: list[Body] = []

    @property
    def whole(self) -> Settlement:
        if not self.bodies:
            return self.own
        found = [self.own.following, *(body.found for body in self.bodies)]
        send = [*self.own.send, *(message for body in self.bodies for message in body.found.send)]
        claims = tuple(body.claim for body in self.bodies if body.claim is not None)
        return replace(self.own, send=tuple(send), following=replace(_joined(found), claims=claims))

    @property
    def results(self) -> Settlement:
        """Only what is to be stored of it."""
        following = self.whole.following
        kept = Following(records=following.records, claims=following.claims)
        return replace(self.own, send=(), dead=None, following=kept)

    def note_errbacks(self) -> None:
        """They were called."""
        self.own = replace(self.own, following=replace(self.own.following, errbacks=()))
        self.bodies = [replace(body, found=replace(body.found, errbacks=())) for body in self.bodies]

    def note_stored(self) -> None:
        """All that is the result backend's was stored, opened and counted: what is sent is left."""
        self.own = replace(self.own, record=None, following=NOTHING)
        self.bodies = [replace(body, found=Following(send=body.found.send)) for body in self.bodies]


class Conclusions:
    def __init__(
        self,
        queue: TaskQueue,
        jobs: Jobs,
        settler: Settler,
        followups: Followups,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._jobs = jobs
        self._settler = settler
        self._followups = followups
        self._bodies = Bodies(queue, settler, followups, clock=clock)

    async def conclude(self, job: Job, settlement: Settlement, attempted: Attempted) -> bool:
        """As `Settler.submit`, with all that follows."""
        if settlement.following is NOTHING and not settlement.send:  # nearly all
            held = job if job.held else None
            self._jobs.settle(job)
            return (await self._settler.advance(Completion(settlement, held))).ours
        if not settlement.following.errbacks and not settlement.send:  # a part of a chord, seldom the last one
            self._jobs.settle(job)
        course = _Course(job, settlement, attempted)
        while True:
            verdict = await self._advance(course)
            if verdict.refused is not None:
                self._let_go(course, verdict.refused)
            elif verdict.ours and verdict.due:
                course.note_stored()
                for complete in verdict.due:
                    course.bodies.append(await self._bodies.make(complete, attempted))
            else:
                return verdict.ours

    async def _advance(self, course: _Course) -> Verdict:
        whole = course.whole
        if whole.following.errbacks:
            verdict = await self._settler.advance(Completion(course.results, course.held, unfinished=True))
            if not verdict.ours or verdict.refused is not None:
                return verdict
            for errback in whole.following.errbacks:
                with course.job.cancellable(self._jobs.torn_down):
                    await errbacks.call(self._queue, errback)
            course.note_errbacks()
        if whole.send and any(isinstance(message, ToExchange) for message in whole.send):
            verdict = await self._settler.advance(Completion(course.results, course.held, unfinished=True))
            if not verdict.ours or verdict.refused is not None:
                return verdict
            if not await self._make_ready(course):
                return Verdict(ours=True, refused={})
        try:
            verdict = await self._settler.advance(Completion(course.whole, course.held))
        except BrokerError as error:
            if not any(body.found.send for body in course.bodies):
                raise
            self._give_up(course, error)
            return Verdict(ours=True, refused={})
        if verdict.ours and verdict.refused is None and whole.following.returns:
            self._followups.note_counted(whole.following.returns)
        return verdict

    # -- bodies whose right was lost, or that a server does not take

    def _let_go(self, course: _Course, refused: Mapping[str, bool | None]) -> None:
        left = []
        for body in course.bodies:
            if body.group_id in refused:
                found = self._bodies.after_refusal(body, refused[body.group_id], course.attempted)
                left += [] if found is None else [found]
            else:
                left.append(body)
        course.bodies = left

    def _give_up(self, course: _Course, error: BrokerError) -> None:
        """Else nobody would ever be told of the chord. What is sent for its failure may be refused, too."""
        course.bodies = [self._given_up(body, error, course.attempted) for body in course.bodies]

    def _given_up(self, body: Body, error: BrokerError, attempted: Attempted) -> Body:
        if not body.failed:
            return self._bodies.unsendable(body.complete, attempted, error)
        logger.error("The errbacks of a chord that has failed cannot be sent: %s", error)
        return replace(body, found=replace(body.found, send=()))

    # -- exchanges

    async def _make_ready(self, course: _Course) -> bool:
        """What is sent to exchanges, as it goes to their queues; broadcasts have been published. False if a body
        cannot be sent, and has failed now."""
        send: list[Outgoing] = []
        for message in course.own.send:
            try:
                send += await self._ready([message])
            except BrokerError as error:
                logger.error("What follows from task %s is not sent: %s", course.job.name, error)
        course.own = replace(course.own, send=tuple(send))
        given_up = False
        for n, body in enumerate(course.bodies):
            try:
                found = replace(body.found, send=tuple(await self._ready(body.found.send)))
                course.bodies[n] = replace(body, found=found)
            except BrokerError as error:
                course.bodies[n], given_up = self._given_up(body, error, course.attempted), True
        return not given_up

    async def _ready(self, messages: Sequence[Outgoing]) -> list[Outgoing]:
        connections = self._queue.connections
        return await connections.publisher.outage.survive(partial(connections.exchanges.ready, messages))


def _joined(all_found: Sequence[Following]) -> Following:
    return Following(
        trees=tuple(each for found in all_found for each in found.trees),
        openings=tuple(each for found in all_found for each in found.openings),
        returns=tuple(each for found in all_found for each in found.returns),
        records=tuple(each for found in all_found for each in found.records),
        errbacks=tuple(each for found in all_found for each in found.errbacks),
    )
