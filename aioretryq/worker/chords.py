"""Looks for chords that nobody works on any more. For each a message is sent, which speaks for it where a part would:
whoever runs it has the right to send the body, or nobody (`Conclusions`), however many workers look and whoever dies.

Those messages are in a queue of their own, into which each worker looks now and then: no worker of another kind may
get them, and no other message waits for them.
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
from aioretryq.errors import AioretryqError, BackendError, BrokerError, UnavailableError
from aioretryq.exchanging import outgoing
from aioretryq.protocol.saferepr import inline
from aioretryq.protocol.task import encode_task
from aioretryq.workflows import rescue

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.app import TaskQueue
    from aioretryq.message import Outgoing, OverdueChord
    from aioretryq.outage import Outage
    from aioretryq.worker.executor import Executor
    from aioretryq.worker.jobs import Jobs
    from aioretryq.worker.revocations import Revocations

logger = logging.getLogger("aioretryq.worker")

SHORTEST = 5.0
"""Seconds between two looks at least."""

AT_ONCE = 100
"""Chords in one answer."""

PATIENCE = 2.0
"""Times the lease: until then the message that speaks for a chord has been run, if a worker has time for it."""

_WORDS = {
    "complete": "all parts have returned, and nobody is there who sends its body",
    "unsent": "its sender died before all parts were sent, so its body fails",
    "expired": "it is about to be forgotten, so its body fails",
}


class ChordSweeper:
    def __init__(
        self,
        queue: TaskQueue,
        *,
        broker_outage: Outage,
        backend_outage: Outage,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._broker_outage = broker_outage
        self._backend_outage = backend_outage
        self._clock = clock

    async def run(self, rescuer: Rescuer) -> None:
        backend, lease = self._queue.results.backend, self._queue.conf.lease
        if isinstance(backend, DisabledBackend):
            return
        every, patience, told = max(lease / 2, SHORTEST), max(lease, SHORTEST) * PATIENCE, ""
        while True:
            await anyio.sleep(every * random.uniform(0.5, 1))
            try:
                while await self.sweep(patience):
                    pass
                while await rescuer.rescue() == AT_ONCE:
                    pass
            except UnavailableError:
                continue  # whoever has more to do there says so
            except (BackendError, BrokerError) as error:
                # Tasks do not depend on it: no reason to end the worker, nor to fill the log.
                level = logging.DEBUG if str(error) == told else logging.ERROR
                logger.log(level, "Chords that nobody works on are looked for again in %.0f s: %s", every, error)
                told = str(error)

    async def sweep(self, patience: float) -> int:
        """Send a message for each that is overdue, and was not told to anybody within the patience; how many were."""
        backend = self._queue.results.backend
        overdue = await self._backend_outage.survive(lambda: backend.overdue_chords(patience, AT_ONCE))
        messages = [message for found in overdue if (message := self._message(found)) is not None]
        if messages:
            await self._broker_outage.survive(lambda: self._queue.broker.send(messages))
        return len(overdue)

    def _message(self, found: OverdueChord) -> Outgoing | None:
        if found.why == "broken":
            text = "Chord %s is not looked after, and may never end: %s"
            logger.error(text, inline(found.group_id), inline(found.problem))
            return None
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
        options = CallOptions(task_id=name, root_id=speaking.root_id, ignore_result=True)
        arguments = ((), speaking.arguments)
        task = self._queue.find_task(rescue.TASK)
        composed = compose(rescue.TASK, arguments, options, task=task, settings=conf, caller=None, now=self._clock())
        message = replace(composed, exchange="", routing_key=rescue.QUEUE)  # not where a route may lead
        return outgoing(message, encode_task(message, tag=name, max_size=conf.max_payload_bytes), name)


class Rescuer:
    """Takes the messages that speak for chords, and runs them as any: under a lease, so they come back there if this
    worker dies. They take no time, and wait for no place."""

    def __init__(
        self,
        queue: TaskQueue,
        jobs: Jobs,
        executor: Executor,
        revocations: Revocations,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._jobs = jobs
        self._executor = executor
        self._revocations = revocations
        self._clock = clock

    async def rescue(self) -> int:
        """How many there were, at most `AT_ONCE`; they have been run, or whoever stops the worker hands them back."""
        waiting = await self._queue.broker.depth([rescue.QUEUE])  # nearly never any, and cheaper than a claim
        if not waiting[rescue.QUEUE] or not self._jobs.accepting:
            return 0
        with anyio.CancelScope(shield=True):  # what a claim brings must not be forgotten
            asked = self._clock()
            claim = await self._queue.broker.claim([rescue.QUEUE], limit=AT_ONCE)
            self._revocations.note(claim.revoked, self._jobs)
            if not self._jobs.accepting:  # the stop came meanwhile
                await self._queue.broker.requeue(claim.deliveries)
                return 0
        started = [self._jobs.start(delivery, asked, self._executor.run) for delivery in claim.deliveries]
        await self._jobs.wait_for(started, self._queue.conf.lease)
        return len(started)
