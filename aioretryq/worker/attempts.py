"""One attempt of a task whose message is wanted: early acknowledgement, the body, the hooks."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import anyio.to_thread
from msgspec.structs import replace

from aioretryq import states
from aioretryq.context import Run, current_run
from aioretryq.execution import run_body, run_hooks
from aioretryq.foreign import ForeignTask
from aioretryq.message import Outgoing
from aioretryq.outcome import Failed, Ignored, Interrupted, Succeeded, Traced
from aioretryq.worker.followups import Followups, is_large
from aioretryq.worker.settlement import Attempted, Settlement, document, settle
from aioretryq.worker.settler import Completion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from aioretryq.app import TaskQueue
    from aioretryq.message import Delivery, TaskMessage
    from aioretryq.outcome import Outcome
    from aioretryq.task import Task
    from aioretryq.worker.events import Events
    from aioretryq.worker.jobs import Job, Jobs
    from aioretryq.worker.settler import Settler

logger = logging.getLogger("aioretryq.worker")


class Attempts:
    """Runs bodies: coroutines on the loop, plain functions in at most `threads` threads."""

    def __init__(
        self,
        queue: TaskQueue,
        jobs: Jobs,
        settler: Settler,
        events: Events,
        *,
        name: str,
        threads: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._jobs = jobs
        self._settler = settler
        self._events = events
        self.name = name
        self.followups = Followups(queue, new_tag)
        self._threads = anyio.CapacityLimiter(threads)
        self._clock = clock

    def run(self, job: Job, task: Task[Any, Any], attempted: Attempted) -> Coroutine[Any, Any, Settlement]:
        """What became of it, also when the job was cancelled; nothing but the early acknowledgement is settled."""
        job.plain = not task.is_coroutine
        if attempted.acked:
            return self._run_acknowledged(job, task, attempted)
        return self._run(job, task, attempted, self._threads)

    async def _run_acknowledged(self, job: Job, task: Task[Any, Any], attempted: Attempted) -> Settlement:
        """At most once: the message is acknowledged before the body begins, but not before it could begin."""
        async with self._thread(job, task) as threads:
            if job.cancelled_as is not None:
                return self._settle(job.cancelled_as, replace(attempted, acked=False))
            # From here on the lease is left alone: a renewal that comes after the acknowledgement would take it
            # for lost, and the job with it.
            job.held = False
            if not await self._settler.submit(Completion(Settlement(Ignored()), job)):
                job.lose()
            settlement = await self._run(job, task, attempted, threads)
        if not job.started and isinstance(job.cancelled_as, Interrupted):
            # Its body has not begun: sending it again keeps it at most once.
            return Settlement(job.cancelled_as, send=(_again(job.delivery),))
        return settlement

    @asynccontextmanager
    async def _thread(self, job: Job, task: Task[Any, Any]) -> AsyncIterator[anyio.CapacityLimiter]:
        """With a thread reserved for a plain function, unless the job is cancelled while it waits for one."""
        if task.is_coroutine:
            yield self._threads
            return
        reserved = False
        try:
            with job.cancellable(self._jobs.torn_down):
                await self._threads.acquire_on_behalf_of(job)
                reserved = True
            yield anyio.CapacityLimiter(1)
        finally:
            if reserved:
                self._threads.release_on_behalf_of(job)

    async def _run(
        self, job: Job, task: Task[Any, Any], attempted: Attempted, threads: anyio.CapacityLimiter
    ) -> Settlement:
        if attempted.options.track_started and not attempted.ignore_result:
            who = {"pid": os.getpid(), "hostname": self.name}
            record = self._queue.results.record(document(attempted, states.STARTED, who, None, self._clock()))
            await self._settler.submit(Completion(Settlement(Ignored(), record), None))
        ended: Outcome | None = None
        current_run.set(Run(task, attempted.request, self._queue))  # for good: the job has a context of its own
        with job.cancellable(self._jobs.torn_down):
            if job.cancelled_as is None:
                outcome = await self._body(job, task, attempted, threads)
                if job.cancelled_as is not None and not isinstance(outcome, Succeeded | Traced):
                    # What a body raises while it is being cancelled, its clean-up say, is not its failure.
                    outcome = job.cancelled_as
                if job.cancelled_as is None and job.cancelling:
                    await asyncio.sleep(0)  # it has cancelled itself, which takes effect here
                ended = outcome
        if ended is None:
            # If nobody asked for it, its own code has cancelled the asyncio task that it runs in.
            itself = Failed(asyncio.CancelledError("the task has cancelled itself"))
            return self._settle(job.cancelled_as or itself, attempted)
        if is_large(attempted):
            settlement = await anyio.to_thread.run_sync(self._settle, ended, attempted)
        else:
            settlement = self._settle(ended, attempted)
        if task.hooks:
            with job.cancellable(self._jobs.torn_down):
                await run_hooks(task, attempted.request, settlement.outcome, threads)
        return settlement

    def _body(
        self, job: Job, task: Task[Any, Any], attempted: Attempted, threads: anyio.CapacityLimiter
    ) -> Coroutine[Any, Any, Outcome]:
        if not job.plain and not isinstance(task, ForeignTask):  # nearly all
            self._begin(job, attempted.message)
            return run_body(task, attempted.request, limits=attempted.limits, clock=self._clock)
        started = functools.partial(self._begin, job, attempted.message)
        if isinstance(task, ForeignTask):
            return task.attempt(attempted.message, attempted.request, threads=threads, started=started)
        return run_body(task, attempted.request, threads=threads, started=started, clock=self._clock)

    def _begin(self, job: Job, message: TaskMessage) -> bool:
        begun = self._jobs.begin(job)
        if begun:
            self._events.started(message)
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("Task %s started attempt=%d", job.name, message.retries + 1)
        return begun

    def _settle(self, outcome: Outcome, attempted: Attempted) -> Settlement:
        record = self._queue.results.record
        followups = self.followups
        return settle(outcome, attempted, now=self._clock(), tag=new_tag, record=record, followups=followups)


def _again(delivery: Delivery) -> Outgoing:
    """As if it had been handed back."""
    return Outgoing(
        delivery.queue,
        delivery.body,
        new_tag(),
        delivery.priority,
        deliveries=delivery.deliveries - 1,
        interruptions=delivery.interruptions + 1,
    )


def new_tag() -> str:
    return str(uuid4())
