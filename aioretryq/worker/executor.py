"""One message, from its bytes to its settlement."""

from __future__ import annotations

import functools
import logging
import os
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio

from aioretryq import states
from aioretryq.context import Request
from aioretryq.errors import NotOpenError, NotRegistered, ProtocolError
from aioretryq.execution import run_body, run_hooks, running
from aioretryq.message import Outgoing
from aioretryq.outcome import Ignored, Interrupted, Outcome, Revoked, Succeeded
from aioretryq.protocol.task import decode_task, parse_moment
from aioretryq.worker.log import log_outcome
from aioretryq.worker.settlement import Attempted, Settlement, dead_letter, document, settle
from aioretryq.worker.settler import Completion

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from aioretryq.app import TaskQueue
    from aioretryq.message import Delivery, TaskMessage
    from aioretryq.task import Task
    from aioretryq.worker.jobs import Job, Jobs
    from aioretryq.worker.settler import Settler

logger = logging.getLogger("aioretryq.worker")


class Executor:
    """Takes a job through decoding, checks, the run, and settlement. Holds nothing of any job itself."""

    def __init__(
        self,
        queue: TaskQueue,
        jobs: Jobs,
        settler: Settler,
        *,
        name: str,
        threads: int,
        revoked: Container[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._jobs = jobs
        self._settler = settler
        self._name = name
        self._threads = anyio.CapacityLimiter(threads)
        self._revoked = revoked
        self._clock = clock

    async def run(self, job: Job) -> None:
        """Ends when the job's message is settled, or noted for being handed back."""
        try:
            await self._process(job)
        except NotOpenError:
            logger.warning("Task [%s] comes back when its lease ends: this worker is being torn down", job.task_id)
        except Exception as error:
            # A server refused the settlement, or it could not even be encoded: retrying would not help, and
            # running the task again neither. One message must never end the worker and all that runs in it.
            logger.exception("Cannot settle a message of queue %s; it goes to the dead letters", job.delivery.queue)
            await self._bury_at_last(job, error)
        finally:
            self._jobs.remove(job)

    async def _process(self, job: Job) -> None:
        try:
            conf = self._queue.conf
            message = decode_task(
                job.delivery.body, accept_content=conf.accept_content, max_size=conf.max_payload_bytes
            )
        except ProtocolError as error:
            logger.error("Undecodable message in queue %s goes to the dead letters: %s", job.delivery.queue, error)
            await self._bury(job, "undecodable", error)
            return
        job.task_id = message.id
        due = self._due(message)
        if due is not None:
            await self._park(job, due)
            return
        try:
            task = self._queue.find_task(message.task)
        except NotRegistered as error:
            delay = self._queue.conf.unknown_task_delay
            logger.warning("%s %s[%s] is offered again in %.1f s", error, message.task, message.id, delay)
            await self._park(job, self._clock() + delay, offered=True)
            return
        if message.callbacks or message.errbacks or message.chain or message.chord:
            logger.warning("Task %s[%s]: its links, chain or chord are not followed yet", message.task, message.id)
        await self._run_task(job, message, task)

    def _due(self, message: TaskMessage) -> float | None:
        """When the message wants to run, if that is in the future and it is still wanted then."""
        if message.eta is None or message.id in self._revoked:
            return None
        due = parse_moment(message.eta)
        return due if due > self._clock() else None

    async def _run_task(self, job: Job, message: TaskMessage, task: Task[Any, Any]) -> None:
        request = Request.of(
            message,
            hostname=self._name,
            delivery_info={
                "exchange": message.exchange,
                "routing_key": job.delivery.queue,
                "priority": message.priority,
                "redelivered": job.delivery.redelivered,
            },
            ignore_result=task.ignore_result if message.ignore_result is None else message.ignore_result,
        )
        conf = self._queue.conf
        attempted = Attempted(
            message=message,
            delivery=job.delivery,
            request=request,
            worker=self._name,
            acked=not task.acks_late,
            extended=conf.result_extended,
            ignore_result=request.ignore_result,
            store_errors=task.store_errors_even_if_ignored,
        )
        before = time.perf_counter()
        settlement = await self._not_to_run(job, attempted)
        if settlement is None:
            settlement = await self._attempt(job, task, attempted)
        runtime = time.perf_counter() - before
        if job.lease_lost:
            logger.error("Task %s[%s] lost its lease and was stopped; another worker has it", task.name, message.id)
            return
        if settlement.requeue:
            self._jobs.interrupted.append(job)
        elif not await self._settler.submit(Completion(settlement, job.delivery if job.held else None)):
            logger.error("Task %s[%s] was done, but its lease was lost: it may run twice", task.name, message.id)
        log_outcome(task, message, settlement.outcome, runtime)

    async def _not_to_run(self, job: Job, attempted: Attempted) -> Settlement | None:
        """The settlement of a message whose task must not run: revoked, expired, or done already."""
        message = attempted.message
        if message.id in self._revoked:
            return self._settle(Revoked("revoked"), attempted)
        if message.expires is not None and parse_moment(message.expires) <= self._clock():
            return self._settle(Revoked("expired"), attempted)
        if job.delivery.redelivered and await self._settler.is_settled(message.id):
            return self._settle(Ignored(), attempted)
        return None

    async def _attempt(self, job: Job, task: Task[Any, Any], attempted: Attempted) -> Settlement:
        if attempted.acked:
            # At most once: if this worker dies now, the task is not run again. From here on the lease is left
            # alone: a renewal that comes after the acknowledgement would take it for lost, and the job with it.
            job.held = False
            if not await self._settler.submit(Completion(Settlement(Ignored()), job.delivery)):
                job.lose()
        if task.track_started and not attempted.ignore_result:
            who = {"pid": os.getpid(), "hostname": self._name}
            record = self._queue.results.record(document(attempted, states.STARTED, who, None, self._clock()))
            await self._settler.submit(Completion(Settlement(Ignored(), record), None))
        settlement: Settlement | None = None
        with job.cancellable(), running(task, attempted.request, self._queue):
            if job.cancelled_as is None:
                started = functools.partial(self._note_start, job, attempted.message)
                outcome = await run_body(
                    task, attempted.request, threads=self._threads, started=started, clock=self._clock
                )
                if job.cancelled_as is not None and not isinstance(outcome, Succeeded):
                    # What a body raises while it is being cancelled, its clean-up say, is not its failure.
                    outcome = job.cancelled_as
                settlement = self._settle(outcome, attempted)
                await run_hooks(task, attempted.request, settlement.outcome, self._threads)
        if settlement is None:
            assert job.cancelled_as is not None
            settlement = self._settle(job.cancelled_as, attempted)
            if attempted.acked and not job.started and isinstance(job.cancelled_as, Interrupted):
                # It was acknowledged, but its body has not begun: sending it again keeps it at most once.
                settlement = Settlement(job.cancelled_as, send=(self._again(job.delivery),))
        return settlement

    def _note_start(self, job: Job, message: TaskMessage) -> None:
        job.started = True
        logger.debug("Task %s[%s] started attempt=%d", message.task, message.id, message.retries + 1)

    def _settle(self, outcome: Outcome, attempted: Attempted) -> Settlement:
        record = self._queue.results.record
        return settle(outcome, attempted, now=self._clock(), tag=_new_tag, record=record)

    async def _park(self, job: Job, due: float, *, offered: bool = False) -> None:
        """Leave the message with the broker until it is due: no slot, no memory and no lease is held for it."""
        again = self._again(job.delivery, due, offered=offered)
        await self._settler.submit(Completion(Settlement(Ignored(), None, (again,)), job.delivery))

    def _again(self, delivery: Delivery, due: float | None = None, *, offered: bool = False) -> Outgoing:
        return Outgoing(delivery.queue, delivery.body, _new_tag(), delivery.priority, due, offered)

    async def _bury_at_last(self, job: Job, error: Exception) -> None:
        try:
            await self._bury(job, "settlement refused", error)
        except Exception:
            job.held = False
            logger.exception("Cannot bury it either; it comes back when its lease ends")

    async def _bury(self, job: Job, reason: str, error: BaseException) -> None:
        entry = dead_letter(reason, job.delivery, self._name, self._clock(), error)
        await self._settler.submit(Completion(Settlement(Ignored(), dead=entry), job.delivery))


def _new_tag() -> str:
    return str(uuid4())
