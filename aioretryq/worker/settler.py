"""Carries settlements out, many at a time: results first, then the broker.

A crash between the two leaves a stored result and a message that comes back; whoever gets it finds the final
result and only acknowledges. A crash before the first leaves the message as it was.

Results are not fenced by the broker. So a message whose lease may have ended by our own clock (this process was
frozen, or cut off) has it confirmed before its result is stored.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from aioretryq import states
from aioretryq.backends.disabled import DisabledBackend
from aioretryq.batching import GroupCommit
from aioretryq.errors import ProtocolError
from aioretryq.message import Finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.backends.store import ResultStore
    from aioretryq.brokers.base import Broker
    from aioretryq.outage import Outage
    from aioretryq.protocol.result import ResultDocument
    from aioretryq.worker.jobs import Job
    from aioretryq.worker.settlement import Settlement

logger = logging.getLogger("aioretryq.worker")


@dataclass(frozen=True, slots=True)
class Completion:
    """A settlement, and the job whose message it is about; None when that was acknowledged before it ran."""

    settlement: Settlement
    job: Job | None


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
        self._commits: GroupCommit[Completion, bool] = GroupCommit(self._commit, size=_size)
        self._without_result: GroupCommit[Completion, bool] = GroupCommit(self._commit, size=_size)

    async def submit(self, completion: Completion) -> bool:
        """Returns when it is done; False when the message was no longer ours: then nothing was.

        Waits out any outage. Raises BackendError or BrokerError when a server refuses.
        """
        # Two lanes: what stores nothing does not wait for a result backend that is gone, or a server that is full.
        lane = self._without_result if completion.settlement.record is None else self._commits
        return await lane.submit(completion)

    async def settled(self, task_id: str) -> ResultDocument | None:
        """The final result, if one is stored: then an earlier holder of the message got as far as that."""
        if isinstance(self._results.backend, DisabledBackend):
            return None
        try:
            document = await self._backend_outage.survive(lambda: self._results.get_task_meta(task_id))
        except ProtocolError as error:
            logger.warning("The stored result of task %s cannot be read, and counts as none: %s", task_id, error)
            return None
        return document if document.status in states.FINAL else None

    async def run(self) -> None:
        async with anyio.create_task_group() as lanes:
            lanes.start_soon(self._commits.run)
            lanes.start_soon(self._without_result.run)

    async def _commit(self, batch: list[Completion]) -> list[bool]:
        ours = await self._backend_outage.survive(lambda: self._store(batch))
        done = [entry for entry, still in zip(batch, ours, strict=True) if still]
        early = [entry.settlement for entry in done if entry.job is None]
        if sends := [out for settlement in early for out in settlement.send]:
            await self._broker_outage.survive(lambda: self._broker.send(sends))
        if dead := [settlement.dead for settlement in early if settlement.dead is not None]:
            await self._broker_outage.survive(lambda: self._broker.bury(dead))
        finishes = [
            Finish(entry.job.delivery, entry.settlement.send, entry.settlement.dead)
            for entry in done
            if entry.job is not None
        ]
        finished = iter(await self._broker_outage.survive(lambda: self._broker.finish(finishes)) if finishes else [])
        return [still and (entry.job is None or next(finished)) for entry, still in zip(batch, ours, strict=True)]

    async def _store(self, batch: list[Completion]) -> list[bool]:
        """Store the results of those messages that are still ours; called anew after an outage."""
        ours = await self._confirm(batch)
        records = [
            entry.settlement.record
            for entry, still in zip(batch, ours, strict=True)
            if still and entry.settlement.record is not None
        ]
        if records:
            await self._results.backend.store(records)
        return ours

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


def _size(completion: Completion) -> int:
    """Bytes that travel, roughly: a batch has to be transmitted within a server's deadline."""
    settlement = completion.settlement
    stored = 0 if settlement.record is None else len(settlement.record.document)
    buried = 0 if settlement.dead is None else len(settlement.dead.content)
    return stored + buried + sum(len(out.body) for out in settlement.send)
