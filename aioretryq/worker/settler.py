"""Carries settlements out, many at a time: in one step where broker and result backend are in one place, else results
first, then the broker.

A crash between those two leaves a stored result and a message that comes back; whoever gets it finds the final result
and only acknowledges. A crash before the first leaves the message as it was.

What the backend stores is not fenced by the broker. So a message whose lease may have ended by our own clock (this
process was frozen, or cut off) has it confirmed before its result is stored.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

import anyio
from msgspec import Struct

from aioretryq import states
from aioretryq.backends.disabled import DisabledBackend
from aioretryq.batching import GroupCommit
from aioretryq.errors import BackendError, ProtocolError
from aioretryq.message import Finish
from aioretryq.protocol.saferepr import inline
from aioretryq.worker.followups import NOTHING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aioretryq.backends.store import ResultStore
    from aioretryq.brokers.base import Broker
    from aioretryq.message import ChordClaim
    from aioretryq.outage import Outage
    from aioretryq.protocol.result import ResultDocument
    from aioretryq.worker.jobs import Job
    from aioretryq.worker.parts import Return
    from aioretryq.worker.settlement import Settlement

logger = logging.getLogger("aioretryq.worker")
T = TypeVar("T")


class Completion(Struct, frozen=True):
    """A settlement, and the job whose message it is about; None when that was acknowledged before it ran.

    `unfinished`: only results are stored yet, and the message is not acknowledged.
    """

    settlement: Settlement
    job: Job | None
    unfinished: bool = False


class Verdict(Struct, frozen=True):
    """`ours` is False when the message was somebody else's: then nothing was done.

    `due` are the chords that were complete with this: the message is not finished before their bodies are with it.
    """

    ours: bool
    due: tuple[Return, ...] = ()


LOST = Verdict(ours=False)
DONE = Verdict(ours=True)
_VERDICTS: dict[bool | None, Verdict | None] = {True: DONE, False: LOST, None: None}


class Settler:
    def __init__(
        self,
        broker: Broker,
        results: ResultStore,
        *,
        lease: float,
        broker_outage: Outage,
        backend_outage: Outage,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._broker = broker
        self._results = results
        self._lease = lease
        self._broker_outage = broker_outage
        self._backend_outage = backend_outage
        self._clock = clock
        self._joined = broker.joins(results.backend)
        self._in_one_step: GroupCommit[Completion, Verdict | None] = GroupCommit(self._together, size=_size)
        self._with_result: GroupCommit[Completion, Verdict] = GroupCommit(self._apart, size=_size)
        self._without_result: GroupCommit[Completion, Verdict] = GroupCommit(self._apart, size=_size)

    async def submit(self, completion: Completion) -> bool:
        """Returns when it is done; False when the message was no longer ours: then nothing was.

        Waits out any outage. Raises BackendError or BrokerError when a server refuses.
        """
        return (await self.advance(completion)).ours

    async def advance(self, completion: Completion) -> Verdict:
        """As `submit`, of a settlement that may be a part of a chord."""
        # Lanes: what stores nothing does not wait for a result backend that is gone, or a server that is full, and
        # where the backend refuses a result no message in its batch is finished yet.
        settlement = completion.settlement
        if self._joined and _is_one_step(completion):
            verdict = await self._in_one_step.hand_in(completion).answer
            if verdict is not None:
                return verdict
        following = settlement.following
        stores = settlement.record is not None or (following is not NOTHING and following.in_backend)
        return await (self._with_result if stores else self._without_result).hand_in(completion).answer

    async def settled(self, task_id: str) -> ResultDocument | None:
        """The final result, if one is stored: then an earlier holder of the message got as far as that."""
        if isinstance(self._results.backend, DisabledBackend):
            return None
        try:
            document = await self._backend_outage.survive(lambda: self._results.get_task_meta(task_id))
        except ProtocolError as error:
            text = "The stored result of task %s cannot be read, and counts as none: %s"
            logger.warning(text, inline(task_id), error)
            return None
        return document if document.status in states.FINAL else None

    async def persist(self, operation: Callable[[], Awaitable[T]]) -> T:
        """The operation on the result backend, through any outage."""
        return await self._backend_outage.survive(operation)

    async def run(self) -> None:
        async with anyio.create_task_group() as lanes:
            lanes.start_soon(self._in_one_step.run)
            lanes.start_soon(self._with_result.run)
            lanes.start_soon(self._without_result.run)

    async def _together(self, batch: list[Completion]) -> list[Verdict | None]:
        """In one step with their results. None where nothing was done: only the backend can tell whether what it has
        may be replaced."""
        finishes = [_finish(entry.job, entry.settlement, joined=True) for entry in batch if entry.job is not None]
        return [_VERDICTS[done] for done in await self._broker_outage.survive(lambda: self._broker.finish(finishes))]

    async def _apart(self, batch: list[Completion]) -> list[Verdict]:
        ours = await self._backend_outage.survive(lambda: self._store(batch))
        due = await self._chords(batch, ours)
        verdicts = [
            Verdict(ours=still, due=complete) if complete else DONE if still else LOST
            for still, complete in zip(ours, due, strict=True)
        ]
        done = [n for n, entry in enumerate(batch) if verdicts[n] is DONE and not entry.unfinished]
        await self._send([batch[n].settlement for n in done if batch[n].job is None])
        finishes = {n: _finish(job, batch[n].settlement) for n in done if (job := batch[n].job) is not None}
        if finishes:
            found = await self._broker_outage.survive(lambda: self._broker.finish(list(finishes.values())))
            for n, finished in zip(finishes, found, strict=True):
                verdicts[n] = DONE if finished else LOST
        await self._close([claim for n in done if verdicts[n].ours for claim in batch[n].settlement.following.claims])
        return verdicts

    async def _chords(self, batch: list[Completion], ours: list[bool]) -> list[tuple[Return, ...]]:
        """Which chords are complete with each entry."""
        due: list[tuple[Return, ...]] = [()] * len(batch)
        counted = [
            n
            for n, entry in enumerate(batch)
            if entry.settlement.following is not NOTHING and ours[n] and entry.settlement.following.in_backend
        ]
        if counted:
            found = await self._backend_outage.survive(lambda: self._count([batch[n] for n in counted]))
            for n, complete in zip(counted, found, strict=True):
                due[n] = complete
        return due

    async def _close(self, claims: list[ChordClaim]) -> None:
        """Not closed, a chord is only forgotten later; what was to be sent is on its way."""
        if not claims:
            return
        try:
            await self._backend_outage.survive(lambda: self._results.backend.close_chords(claims))
        except BackendError as error:
            logger.warning("Chords whose bodies were sent cannot be closed, and expire: %s", error)

    async def _send(self, early: list[Settlement]) -> None:
        """Of messages that were acknowledged before their tasks ran."""
        if sends := [out for settlement in early for out in settlement.send]:
            await self._broker_outage.survive(lambda: self._broker.send(sends))
        if dead := [settlement.dead for settlement in early if settlement.dead is not None]:
            await self._broker_outage.survive(lambda: self._broker.bury(dead))

    async def _store(self, batch: list[Completion]) -> list[bool]:
        """Store the results of those messages that are still ours; called anew after an outage."""
        ours = await self._confirm(batch)
        records = []
        for entry, still in zip(batch, ours, strict=True):
            if still and entry.settlement.record is not None:
                records.append(entry.settlement.record)
            if still and entry.settlement.following is not NOTHING:
                records += entry.settlement.following.records
        if records:
            await self._results.backend.store(records)
        return ours

    async def _count(self, batch: list[Completion]) -> list[tuple[Return, ...]]:
        """Open the chords that follow, count the parts that return, and say which chords are complete with them."""
        backend = self._results.backend
        for entry in batch:
            for group_id, tree in entry.settlement.following.trees:
                await self._results.save_group(group_id, tree)
        await backend.open_chords([opening for entry in batch for opening in entry.settlement.following.openings])
        returns = [found for entry in batch for found in entry.settlement.following.returns]
        if not returns:
            return [()] * len(batch)
        complete = iter(await backend.count_parts([found.part for found in returns]))
        return [tuple(found for found in e.settlement.following.returns if next(complete)) for e in batch]

    async def _confirm(self, batch: list[Completion]) -> list[bool]:
        """Which messages are still ours. Nearly always known without asking: leases are renewed all the time."""
        enough = self._clock() + self._lease / 4
        doubtful = [entry.job for entry in batch if entry.job is not None and entry.job.leased_until < enough]
        if not doubtful:
            return [entry.job is None or not entry.job.lease_lost for entry in batch]
        now, deliveries = self._clock(), [job.delivery for job in doubtful]
        extended = await self._broker_outage.survive(lambda: self._broker.extend(deliveries))
        for job, still in zip(doubtful, extended, strict=True):
            if still:
                job.leased_until = now + self._lease
            else:
                job.lease_lost = True
        return [entry.job is None or not entry.job.lease_lost for entry in batch]


def _is_one_step(entry: Completion) -> bool:
    """Whether all there is to do is the broker's, if it joins the result backend. Nearly always."""
    job, settlement = entry.job, entry.settlement
    if job is None or job.lease_lost or entry.unfinished:
        return False
    following = settlement.following
    if following is NOTHING:
        return settlement.record is not None
    if following.openings or following.trees or following.records or following.claims:
        return False
    for found in following.returns:
        if found.part.body is not None or found.part.why is not None:
            return False
    return settlement.record is not None or bool(following.returns)


def _finish(job: Job, settlement: Settlement, *, joined: bool = False) -> Finish:
    if not joined:
        return Finish(job.delivery, settlement.send, settlement.dead)
    returns = settlement.following.returns
    parts = tuple([found.part for found in returns]) if returns else ()
    return Finish(job.delivery, settlement.send, settlement.dead, settlement.record, parts)


def _size(completion: Completion) -> int:
    """Bytes that travel, roughly: a batch has to be transmitted within a server's deadline."""
    settlement = completion.settlement
    size = 0 if settlement.record is None else len(settlement.record.document)
    if settlement.following is not NOTHING:
        for found in settlement.following.returns:
            size += len(found.part.content)
        for record in settlement.following.records:
            size += len(record.document)
    for out in settlement.send:
        size += len(out.body)
    return size if settlement.dead is None else size + len(settlement.dead.content)
