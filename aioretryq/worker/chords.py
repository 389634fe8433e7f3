"""Looks for chords that nobody works on any more. For each a message is sent, which speaks for it where a part would:
whoever runs it has the right to send the body, or nobody (`Conclusions`), however many workers look and whoever dies.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

import anyio
from msgspec.structs import replace

from aioretryq.backends.disabled import DisabledBackend
from aioretryq.calling import CallOptions, compose
from aioretryq.errors import AioretryqError, BackendError, BrokerError
from aioretryq.exchanging import outgoing
from aioretryq.protocol.saferepr import inline
from aioretryq.protocol.task import encode_task
from aioretryq.workflows import rescue

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.app import TaskQueue
    from aioretryq.message import Outgoing, OverdueChord
    from aioretryq.outage import Outage

logger = logging.getLogger("aioretryq.worker")

SHORTEST = 5.0
"""Seconds between two looks at least."""

AT_ONCE = 100
"""Chords in one answer: their bodies come with them."""

PATIENCE = 2.0
"""Times the lease: until then the message that speaks for a chord has been run, if a worker has time for it."""

_WORDS = {
    "complete": "all parts have returned, and nobody is there who sends its body",
    "unsent": "its sender died before all parts were sent, so its body fails",
    "expired": "it is about to be forgotten, so its body fails",
}


class ChordSweeper:
    """`queue_name` is where the messages go: to workers like this one."""

    def __init__(
        self,
        queue: TaskQueue,
        queue_name: str,
        *,
        broker_outage: Outage,
        backend_outage: Outage,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._queue_name = queue_name
        self._broker_outage = broker_outage
        self._backend_outage = backend_outage
        self._clock = clock

    async def run(self) -> None:
        backend, lease = self._queue.results.backend, self._queue.conf.lease
        if isinstance(backend, DisabledBackend):
            return
        every, patience = max(lease / 2, SHORTEST), max(lease, SHORTEST) * PATIENCE
        while True:
            await anyio.sleep(every * random.uniform(0.5, 1))
            try:
                while await self.sweep(patience) == AT_ONCE:
                    pass
            except (BackendError, BrokerError) as error:
                # Tasks do not depend on it: no reason to end the worker.
                logger.error("Chords that nobody works on are looked for again in %.0f s: %s", every, error)

    async def sweep(self, patience: float) -> int:
        """Send a message for each that is overdue, and was not told to anybody within the patience; how many were."""
        backend = self._queue.results.backend
        overdue = await self._backend_outage.survive(lambda: backend.overdue_chords(patience, AT_ONCE))
        messages = [message for found in overdue if (message := self._message(found)) is not None]
        if messages:
            await self._broker_outage.survive(lambda: self._queue.broker.send(messages))
        return len(overdue)

    def _message(self, found: OverdueChord) -> Outgoing | None:
        whole = "?" if found.size is None else found.size
        text = "Chord %s is rescued (%d of %s parts have returned, %.0f s after it began): %s"
        logger.warning(text, inline(found.group_id), found.returned, whole, found.age, _WORDS[found.why])
        try:
            return self._composed(found)
        except AioretryqError as error:
            logger.error("Chord %s cannot be rescued: %s", inline(found.group_id), error)
            return None

    def _composed(self, found: OverdueChord) -> Outgoing:
        conf, name = self._queue.conf, rescue.name_of(found)
        speaking = rescue.Rescue.of(found)
        options = CallOptions(task_id=name, queue=self._queue_name, root_id=speaking.root_id, ignore_result=True)
        arguments = ((), speaking.arguments)
        task = self._queue.find_task(rescue.TASK)
        composed = compose(rescue.TASK, arguments, options, task=task, settings=conf, caller=None, now=self._clock())
        message = replace(composed, exchange="", routing_key=self._queue_name)  # not to whoever is bound there, too
        return outgoing(message, encode_task(message, tag=name, max_size=conf.max_payload_bytes), name)
