"""Carries settlements out, many at a time: results first, then the broker.

A crash between the two leaves a stored result and a message that comes back; whoever gets it finds the final
result and only acknowledges. A crash before the first leaves the message as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aioretryq import states
from aioretryq.backends.disabled import DisabledBackend
from aioretryq.batching import GroupCommit
from aioretryq.message import Finish

if TYPE_CHECKING:
    from aioretryq.backends.store import ResultStore
    from aioretryq.brokers.base import Broker
    from aioretryq.message import Delivery
    from aioretryq.outage import Outage
    from aioretryq.worker.settlement import Settlement


@dataclass(frozen=True, slots=True)
class Completion:
    """A settlement, and the message it is about; None when that was acknowledged before it ran."""

    settlement: Settlement
    delivery: Delivery | None


class Settler:
    def __init__(
        self, broker: Broker, results: ResultStore, *, broker_outage: Outage, backend_outage: Outage
    ) -> None:
        self._broker = broker
        self._results = results
        self._broker_outage = broker_outage
        self._backend_outage = backend_outage
        self._commits: GroupCommit[Completion, bool] = GroupCommit(self._commit)

    async def submit(self, completion: Completion) -> bool:
        """Returns when it is done; False when the message was no longer ours.

        Waits out any outage. Raises BackendError or BrokerError when a server refuses.
        """
        return await self._commits.submit(completion)

    async def is_settled(self, task_id: str) -> bool:
        """Whether a final result is stored: then an earlier holder of the message got as far as that."""
        if isinstance(self._results.backend, DisabledBackend):
            return False
        document = await self._backend_outage.survive(lambda: self._results.get_task_meta(task_id))
        return document.status in states.FINAL

    async def run(self) -> None:
        await self._commits.run()

    async def _commit(self, batch: list[Completion]) -> list[bool]:
        if records := [entry.settlement.record for entry in batch if entry.settlement.record is not None]:
            await self._backend_outage.survive(lambda: self._results.store(records))
        if sends := [out for entry in batch if entry.delivery is None for out in entry.settlement.send]:
            await self._broker_outage.survive(lambda: self._broker.send(sends))
        finishes = [
            Finish(entry.delivery, entry.settlement.send, entry.settlement.dead)
            for entry in batch
            if entry.delivery is not None
        ]
        if not finishes:
            return [True] * len(batch)
        ours = iter(await self._broker_outage.survive(lambda: self._broker.finish(finishes)))
        return [True if entry.delivery is None else next(ours) for entry in batch]
