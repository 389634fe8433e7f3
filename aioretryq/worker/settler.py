"""Carries settlements out, many at a time: in one step where broker and result backend are in one place, else results
first, then the broker.

A crash between those two leaves a stored result and a message that comes back; whoever gets it finds the final result
and only acknowledges. A crash before the first leaves the message as it was.

What the backend stores is not fenced by the broker. So a message whose lease may have ended by our own clock (this
process was frozen, or cut off) has it confirmed before its result is stored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, TypeVar

import anyio
from msgspec import Struct
from msgspec.structs import replace

from aioretryq import states
from aioretryq.backends.disabled import DisabledBackend
from aioretryq.batching import GroupCommit
from aioretryq.errors import BackendError, ProtocolError
from aioretryq.message import Finish
from aioretryq.protocol.envelope import publish_tag
from aioretryq.protocol.saferepr import inline
from aioretryq.worker.followups import NOTHING
from aioretryq.worker.parts import OF_LEASE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aioretryq.backends.store import ResultStore
    from aioretryq.brokers.base import Broker
    from aioretryq.message import ChordClaim, ChordOpening
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

    @property
    def claims(self) -> tuple[ChordClaim, ...]:
        return self.settlement.following.claims


class Verdict(Struct, frozen=True):
    """`ours` is False when the message was somebody else's: then nothing was done.

    `due` are the chords that were complete with this: the message is not finished before their bodies are with it.

    `refused`: it was not finished, for the right to send one of the bodies was not ours (any more). Asked again,
    these chords have said so (by group id, as `ResultBackend.hold_chords`); of all others it is.
    """

    ours: bool
    due: tuple[Return, ...] = ()
    refused: Mapping[str, bool | None] | None = None


LOST = Verdict(ours=False)
DONE = Verdict(ours=True)
_VERDICTS: dict[bool | None, Verdict | None] = {True: DONE, False: LOST, None: None}

SENDING = 20.0
"""Seconds for which a worker has the right to send a body, once it is about to; less with a short lease, where its
message comes back then."""


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
        finishes = [_whole_finish(entry.job, entry.settlement) for entry in batch if entry.job is not None]
        return [_VERDICTS[done] for done in await self._broker_outage.survive(lambda: self._broker.finish(finishes))]

    async def _apart(self, batch: list[Completion]) -> list[Verdict]:
        asked = [entry for entry in batch if entry.claims and self._asks_first(entry)]
        verdicts = {id(entry): verdict for entry in asked if (verdict := await self._refusal(entry)) is not None}
        willing = [entry for entry in batch if id(entry) not in verdicts]
        ours = await self._backend_outage.survive(lambda: self._store(willing))
        due = await self._chords(willing, ours)
        ready = []
        for entry, still, complete in zip(willing, ours, due, strict=True):
            verdicts[id(entry)] = Verdict(ours=still, due=complete) if complete else DONE if still else LOST
            if still and not complete and not entry.unfinished:
                ready.append(entry)
        if self._joined:
            verdicts.update(await self._finish(ready))
        else:
            verdicts.update(await self._finish([entry for entry in ready if not entry.claims]))
            with_bodies = [entry for entry in ready if entry.claims]
            sent = await asyncio.gather(*map(self._send_bodies, with_bodies), return_exceptions=True)
            for entry, done in zip(with_bodies, sent, strict=True):
                if isinstance(done, BaseException):
                    raise done
                verdicts[id(entry)] = done
        return [verdicts[id(entry)] for entry in batch]

    async def _finish(self, ready: list[Completion]) -> dict[int, Verdict]:
        """Send what follows, with the acknowledgement if the message is not acknowledged yet."""
        with_finish = [entry for entry in ready if entry.job is not None or entry.claims]
        without = [entry for entry in ready if entry.job is None and not entry.claims]
        await self._send([entry.settlement for entry in without])
        verdicts = {id(entry): DONE for entry in without}
        if with_finish:
            finishes = [_finish(entry, closes=self._joined) for entry in with_finish]
            found = await self._broker_outage.survive(lambda: self._broker.finish(finishes))
            for entry, done in zip(with_finish, found, strict=True):
                verdicts[id(entry)] = DONE if done else LOST if done is False else await self._refused(entry)
        return verdicts

    # -- the right to send the bodies of chords. Where broker and backend are in one place it is a matter of the step
    # that sends them. Else nobody can be sure: it is renewed before each attempt, and the attempt follows at once.

    def _asks_first(self, entry: Completion) -> bool:
        """Whether something is done before that step, which somebody else may have done."""
        following = entry.settlement.following
        return not self._joined or bool(following.openings or following.records or following.returns)

    async def _refused(self, entry: Completion) -> Verdict:
        """Nothing was done, for a right was not ours: which it is."""
        hold = SENDING if entry.job is None else min(SENDING, self._lease * OF_LEASE)
        answers = await self.persist(lambda: self._results.backend.hold_chords(entry.claims, hold))
        pairs = zip(entry.claims, answers, strict=True)
        return Verdict(ours=True, refused={claim.group_id: answer for claim, answer in pairs if not answer})

    async def _refusal(self, entry: Completion) -> Verdict | None:
        found = await self._refused(entry)
        return found if found.refused else None

    async def _send_bodies(self, entry: Completion) -> Verdict:
        """Where broker and backend are in two places."""
        settlement = entry.settlement

        async def attempt() -> Verdict:
            if (refusal := await self._refusal(entry)) is not None:
                return refusal
            if entry.job is not None:
                (done,) = await self._broker.finish([_finish(entry, closes=False)])
                return DONE if done else LOST
            await self._broker.send(settlement.send)
            if settlement.dead is not None:
                await self._broker.bury([settlement.dead])
            return DONE

        verdict = await self._broker_outage.survive(attempt)
        if verdict is DONE:
            await self._close(entry.claims)
        return verdict

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

    async def _close(self, claims: Sequence[ChordClaim]) -> None:
        """Not closed, a chord is only forgotten later; what was to be sent is on its way."""
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
        await backend.open_chords([opening for entry in batch for opening in _openings(entry)])
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


def _openings(entry: Completion) -> tuple[ChordOpening, ...]:
    """Opened in the name of the message: a worker that comes late with it must not open anew what is done since."""
    openings = entry.settlement.following.openings
    if not openings or entry.job is None:
        return openings
    tag = publish_tag(entry.job.delivery.body)
    return tuple(replace(opening, token=tag) for opening in openings)


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
        if found.part.why is not None:
            return False
    return settlement.record is not None or bool(following.returns)


def _finish(entry: Completion, *, closes: bool) -> Finish:
    settlement, delivery = entry.settlement, None if entry.job is None else entry.job.delivery
    return Finish(delivery, settlement.send, settlement.dead, closes=entry.claims if closes else ())


def _whole_finish(job: Job, settlement: Settlement) -> Finish:
    """With its result, and its parts of chords."""
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
