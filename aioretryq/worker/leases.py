"""Keeps what this worker holds its own, and brings back what dead workers held."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from aioretryq.backends.base import ResultBackend
    from aioretryq.brokers.base import Broker
    from aioretryq.outage import Outage
    from aioretryq.worker.jobs import Jobs

logger = logging.getLogger("aioretryq.worker")

CLEANUP_EVERY = 3600.0
"""Seconds between clean-ups of expired results, where the backend does not expire them itself."""


class Leases:
    """Renews the leases of all held messages every third of a lease."""

    def __init__(self, broker: Broker, jobs: Jobs, *, lease: float, outage: Outage) -> None:
        self._broker = broker
        self._jobs = jobs
        self._lease = lease
        self._outage = outage

    async def run(self) -> None:
        while True:
            await anyio.sleep(self._lease / 3)
            await self.renew()

    async def renew(self) -> None:
        held = [job for job in self._jobs.all() if job.held]
        ours = await self._outage.survive(lambda: self._broker.extend([job.delivery for job in held]))
        for job, still in zip(held, ours, strict=True):
            # A job that was settled meanwhile has no lease either.
            if not still and job.held and not job.finished.is_set():
                job.lose()


class Recovery:
    """Puts back messages whose holders are gone, and cleans up, whichever worker gets there first."""

    def __init__(self, broker: Broker, backend: ResultBackend, *, lease: float, outage: Outage) -> None:
        self._broker = broker
        self._backend = backend
        self._lease = lease
        self._outage = outage

    async def run(self) -> None:
        next_cleanup = 0.0
        while True:
            if count := await self._outage.survive(self._broker.recover):
                logger.warning("%d messages of workers that are gone are back in their queues", count)
            if anyio.current_time() >= next_cleanup:
                next_cleanup = anyio.current_time() + CLEANUP_EVERY
                await self._outage.survive(self._backend.cleanup)
            await anyio.sleep(self._lease / 2)
