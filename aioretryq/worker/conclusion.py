"""Brings a settlement to its end: calls errbacks, and sends the bodies of the chords that are complete with it.

The order is safe to crash in: results, then the parts of chords, then errbacks and bodies; with what is sent the
message is acknowledged. Whoever gets it after a crash begins anew, and finds what was stored and counted.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from msgspec.structs import replace

from aioretryq import states
from aioretryq.errors import AioretryqError, BrokerError, ChordError, NotOpenError
from aioretryq.exchanging import ToExchange
from aioretryq.message import ChordClaim
from aioretryq.protocol import jsontypes
from aioretryq.protocol.exceptions import exception_from_data
from aioretryq.protocol.saferepr import inline, saferepr
from aioretryq.protocol.signature import read_signature
from aioretryq.protocol.stored import status_of
from aioretryq.worker.followups import NOTHING, Following, is_large
from aioretryq.worker.parts import OF_LEASE
from aioretryq.worker.settler import Completion
from aioretryq.workflows import errbacks, rescue
from aioretryq.workflows.shapes import failing

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.app import TaskQueue
    from aioretryq.message import Outgoing, Signature
    from aioretryq.worker.followups import Followups
    from aioretryq.worker.jobs import Job, Jobs
    from aioretryq.worker.parts import Return
    from aioretryq.worker.settlement import Attempted, Settlement
    from aioretryq.worker.settler import Settler

logger = logging.getLogger("aioretryq.worker")

SENDING = 20.0
"""Seconds for which a worker has the right to send a body, once it is about to; less with a short lease, where its
message comes back then."""


MANY = 1000
"""Parts of a header whose results a thread has to read, and to put into the body's message: 100,000 take a second."""


class _Failed(Exception):
    """A part of a header, with what it has failed of."""

    def __init__(self, error: ChordError, cause: BaseException) -> None:
        super().__init__(error)
        self.error = error
        self.cause = cause


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
        self._clock = clock

    async def conclude(self, job: Job, settlement: Settlement, attempted: Attempted) -> bool:
        """As `Settler.submit`, with all that follows."""
        held = job if job.held else None
        if settlement.following is NOTHING and not settlement.send:  # nearly all
            self._jobs.settle(job)
            return (await self._settler.advance(Completion(settlement, held))).ours
        if not settlement.following.errbacks and not settlement.send:  # a part of a chord, seldom the last one
            self._jobs.settle(job)
        while True:
            if settlement.following.errbacks:
                if not await self._settler.submit(Completion(_results_only(settlement), held, unfinished=True)):
                    return False
                for errback in settlement.following.errbacks:
                    with job.cancellable(self._jobs.torn_down):
                        await errbacks.call(self._queue, errback)
            if settlement.send and any(isinstance(message, ToExchange) for message in settlement.send):
                if not await self._settler.submit(Completion(_results_only(settlement), held, unfinished=True)):
                    return False
                settlement = await self._ready(job, settlement)
            verdict = await self._settler.advance(Completion(settlement, held))
            if not verdict.ours or not verdict.due:
                return verdict.ours
            settlement = await self._with_bodies(settlement, verdict.due, attempted)

    async def _ready(self, job: Job, settlement: Settlement) -> Settlement:
        """What is sent to exchanges, as it goes to their queues; broadcasts have been published."""
        connections = self._queue.connections
        send: list[Outgoing] = []
        for message in settlement.send:
            try:
                send += await connections.publisher.outage.survive(partial(connections.exchanges.ready, [message]))
            except BrokerError as error:
                logger.error("What follows from task %s is not sent: %s", job.name, error)
        return replace(settlement, send=tuple(send))

    # -- bodies of chords

    async def _with_bodies(self, settlement: Settlement, due: tuple[Return, ...], attempted: Attempted) -> Settlement:
        """What is left to settle: the bodies of these chords, or their failure, with what was to be sent anyway."""
        send, claims = list(settlement.send), list(settlement.following.claims)
        following = Following()
        for complete in due:
            found, failed = await self._body(complete, attempted)
            claim = ChordClaim(complete.part.group_id, complete.part.token, failed)
            if not await self._hold(claim, comes_back=complete.part.returns):
                logger.warning("The body of chord %s is sent by another worker", inline(claim.group_id))
                continue
            claims.append(claim)
            send += found.send
            following = _joined(following, found)
        following = replace(following, claims=tuple(claims))
        return replace(settlement, record=None, send=tuple(send), following=following)

    async def _hold(self, claim: ChordClaim, *, comes_back: bool) -> bool:
        hold = min(SENDING, self._queue.conf.lease * OF_LEASE) if comes_back else SENDING
        (held,) = await self._settler.persist(lambda: self._queue.results.backend.hold_chords([claim], hold))
        return held

    async def _body(self, complete: Return, attempted: Attempted) -> tuple[Following, bool]:
        group_id, why, now = complete.part.group_id, complete.part.why, self._clock()
        try:
            if why is not None and why != rescue.COMPLETE:
                error = ChordError(complete.part.content.decode())
                raise _Failed(error, error)
            if why is not None and await self._is_known(complete.body):
                logger.warning("The body of chord %s was sent already, by a worker that died", inline(group_id))
                return NOTHING, False
            results = await self._results(group_id)
            if not is_large(attempted) and len(results) <= MANY:
                return self._followups.body(attempted, complete.body, results, now), False
            send = partial(self._followups.body, attempted, complete.body, results, now)
            return await anyio.to_thread.run_sync(send), False
        except _Failed as failed:
            error, cause = failed.error, failed.cause
        except NotOpenError:
            raise  # the worker is being torn down, and the part comes back
        except AioretryqError as wrong:
            error, cause = ChordError(f"Callback error: {saferepr(wrong)}"), wrong
        logger.error("Chord %s has failed: %s", inline(group_id), error)
        return self._followups.body_failure(attempted, complete.body, error, cause, now), True

    async def _is_known(self, body: Signature) -> bool:
        """Whether a result of it says that it was sent: whoever did so may have died before the chord was closed."""
        ids = [call.options["task_id"] for call in failing(read_signature(body))]
        found = await self._settler.persist(lambda: self._queue.results.backend.fetch(ids))
        return any(document is not None and status_of(document) not in states.PROPAGATED for document in found)

    async def _results(self, group_id: str) -> list[Any]:
        """What the parts of a header returned, nested as the header is."""
        contents = await self._settler.persist(lambda: self._queue.results.backend.chord_parts(group_id))
        tree = await self._settler.persist(lambda: self._queue.results.restore_group(group_id))
        if len(contents) <= MANY:
            return _values(contents, tree)
        return await anyio.to_thread.run_sync(_values, contents, tree)


def _results_only(settlement: Settlement) -> Settlement:
    following = Following(records=settlement.following.records)
    return replace(settlement, send=(), dead=None, following=following)


def _joined(one: Following, other: Following) -> Following:
    return Following(
        trees=one.trees + other.trees,
        openings=one.openings + other.openings,
        returns=one.returns + other.returns,
        records=one.records + other.records,
        errbacks=one.errbacks + other.errbacks,
    )


def _values(contents: list[bytes], tree: Any) -> list[Any]:
    """What these parts returned, in the form of the tree if there is one."""
    parts = [_read(content) for content in contents]
    values = []
    for task_id, state, result in parts:
        if state in states.PROPAGATED:
            cause = exception_from_data(result)
            raise _Failed(ChordError(f"Dependency {task_id} raised {saferepr(cause)}"), cause)
        values.append(result)
    if tree is None:
        return values
    known = {task_id: value for (task_id, _, _), value in zip(parts, values, strict=True)}
    return [_value(member, known) for member in _members(tree) or ()]


def _value(member: Any, known: dict[str, Any]) -> Any:
    """Of a result in a tree: the task's, or a list of those in it."""
    inner = _members(member)
    if inner is not None:
        return [_value(each, known) for each in inner]
    task_id = _id(member)
    if task_id not in known:
        raise ChordError(f"Nothing is known of {task_id}")
    return known[task_id]


def _read(content: bytes) -> tuple[str, str, Any]:
    """(task id, state, result) of a part that was counted, by a worker of any kind."""
    found = jsontypes.loads(content)
    match found:
        case [_, str(task_id), str(state), result]:
            return task_id, state, result
    raise ChordError("A part of the header cannot be read")


def _members(tree: Any) -> list[Any] | None:
    """Of a group's result as it is stored; None for that of a task."""
    match tree:
        case [_, None]:
            return None
        case [_, [*members]]:
            return members
    raise ChordError("The tree of the header's results cannot be read")


def _id(member: Any) -> str:
    match member:
        case [[str(task_id), _], _] | [str(task_id), _]:
            return task_id
    raise ChordError("The tree of the header's results cannot be read")
