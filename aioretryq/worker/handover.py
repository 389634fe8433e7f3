"""What the last worker of a queue does when it stops: what is parked there becomes ordinary messages again.

Celery workers, which may share the queue or come after us, do not know of parked messages, and would never run them.
Whoever stops while another worker of ours serves the queue leaves them where they are.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

import anyio

from aioretryq.errors import BrokerError, BrokerUnavailable
from aioretryq.worker.leases import Leases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.brokers.base import Broker
    from aioretryq.worker.fetcher import Fetcher
    from aioretryq.worker.jobs import Jobs

logger = logging.getLogger("aioretryq.worker")

SECONDS = 2.0
"""How long a stop may take for it: about thirty thousand messages. Of the rest the log tells."""

AT_ONCE = 100


class Handover:
    def __init__(self, broker: Broker, node: str, queues: Sequence[str], fetcher: Fetcher) -> None:
        self._broker = broker
        self._worker = f"{node} {uuid.uuid4().hex}"  # two workers may have been given one name
        self._queues = list(queues)
        self._fetcher = fetcher

    def leases(self, jobs: Jobs, *, lease: float, blocked_limit: float) -> Leases:
        """The leases, whose sweeps tell the others that this worker lives."""
        return Leases(
            self._broker,
            jobs,
            lease=lease,
            blocked_limit=blocked_limit,
            worker=self._worker,
            queues=lambda: self._fetcher.queues,
        )

    async def run(self) -> None:
        """Once the last sweep is over, or the worker would still count as alive."""
        # Also those that remote control has taken from it: nobody else may have come for what it has parked there.
        served = sorted({*self._queues, *self._fetcher.queues})
        left: dict[str, int] = {}
        try:
            with anyio.move_on_after(SECONDS):
                lonely = await self._broker.leave(self._worker, served)
                parked = await self._broker.parked(lonely) if lonely else {}
                left = {queue: count for queue, count in parked.items() if count}
                for queue in list(left):
                    await self._unpark(queue, left)
        except (BrokerUnavailable, BrokerError) as error:
            logger.warning("What waits in the schedules of %s stays there: %s", ", ".join(served), error)
        for queue, count in left.items():
            logger.warning(
                "About %d messages wait in the schedule of queue %s, and this was its last worker. Celery workers do "
                "not see them: aioretryq unpark -Q %s",
                count,
                queue,
                queue,
            )

    async def _unpark(self, queue: str, left: dict[str, int]) -> None:
        """No more than were there: whoever has come meanwhile may park them again."""
        moved = 0
        while left[queue] > 0 and (count := await self._broker.unpark(queue, limit=min(left[queue], AT_ONCE))):
            left[queue] -= count
            moved += count
        del left[queue]
        logger.info("%d parked messages are back in queue %s, whose last worker this was", moved, queue)
