"""What has to be done now and then, by whichever worker gets there first."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import anyio

from aioretryq.errors import BackendError, BrokerError
from aioretryq.protocol.deadletter import entry_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.backends.base import ResultBackend
    from aioretryq.brokers.base import Broker
    from aioretryq.config import Settings
    from aioretryq.outage import Outage
    from aioretryq.worker.log import Repeated

logger = logging.getLogger("aioretryq.worker")

EVERY = 3600.0
"""Seconds between clean-ups."""

SUMMARY_EVERY = 60.0


class Housekeeping:
    """Deletes expired results (where the backend does not expire them itself) and dead letters that are too many or
    too old, and sums up log lines that were left out."""

    def __init__(
        self,
        broker: Broker,
        backend: ResultBackend,
        settings: Settings,
        repeated: Repeated,
        *,
        broker_outage: Outage,
        backend_outage: Outage,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._broker = broker
        self._backend = backend
        self._settings = settings
        self._repeated = repeated
        self._broker_outage = broker_outage
        self._backend_outage = backend_outage
        self._clock = clock

    async def run(self) -> None:
        next_cleanup = 0.0
        while True:
            if anyio.current_time() >= next_cleanup:
                next_cleanup = anyio.current_time() + EVERY
                await self._clean_up()
            await anyio.sleep(SUMMARY_EVERY)
            self._repeated.sum_up()

    async def _clean_up(self) -> None:
        try:
            await self._backend_outage.survive(self._backend.cleanup)
            await self._broker_outage.survive(self._trim)
        except (BackendError, BrokerError) as error:
            # Tasks do not depend on it: no reason to end the worker.
            logger.error("Cleaning up has failed, it is tried again in %.0f min: %s", EVERY / 60, error)

    async def _trim(self) -> None:
        conf = self._settings
        oldest = entry_id(self._clock() - conf.dead_letter_expires, "")
        if count := await self._broker.trim_dead(keep=conf.dead_letter_max, before=oldest):
            logger.warning("%d dead letters were deleted (dead_letter_max, dead_letter_expires)", count)
