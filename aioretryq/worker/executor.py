"""One message, from its bytes to its settlement."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import os
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio

from aioretryq import states
from aioretryq.context import Request
from aioretryq.errors import NotOpenError, NotRegistered, ProtocolError, WorkerLostError
from aioretryq.execution import run_body, run_hooks, running
from aioretryq.message import Outgoing
from aioretryq.outcome import Failed, GivenUp, Ignored, Interrupted, Outcome, Revoked, Succeeded
from aioretryq.protocol.envelope import mark, marks
from aioretryq.protocol.exceptions import exception_to_data
from aioretryq.protocol.result import ResultDocument
from aioretryq.protocol.task import decode_task, format_moment, identify, parse_moment
from aioretryq.worker import burial
from aioretryq.worker.log import Repeated, log_outcome
from aioretryq.worker.settlement import Attempted, Settlement, document, settle, settle_again
from aioretryq.worker.settler import Completion

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from aioretryq.app import TaskQueue
    from aioretryq.message import Delivery, StoredResult, TaskMessage
    from aioretryq.task import Task
    from aioretryq.worker.jobs import Job, Jobs
    from aioretryq.worker.settler import Settler

logger = logging.getLogger("aioretryq.worker")

LONGEST_PARKING = 60.0
"""Seconds between two offers of a task that nobody knows, at most."""


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
        self.repeated = Repeated()
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

    async def _process(self, job: Job) -> None:
        conf = self._queue.conf
        try:
            message = decode_task(
                job.delivery.body, accept_content=conf.accept_content, max_size=conf.max_payload_bytes
            )
        except ProtocolError as error:
            self.repeated.log(
                logging.ERROR,
                f"undecodable messages in queue {job.delivery.queue} went to the dead letters",
                "Undecodable message in queue %s goes to the dead letters: %s",
                job.delivery.queue,
                error,
            )
            await self._bury(job, burial.UNDECODABLE, error)
            return
        job.task_id = message.id
        unwanted = self._unwanted(message)
        due = None if unwanted else self._due(message)
        if due is not None:
            await self._park(job, job.delivery.body, due)
            return
        try:
            task = self._queue.find_task(message.task)
        except NotRegistered as error:
            await self._offer_again(job, message, unwanted, error)
            return
        if message.callbacks or message.errbacks or message.chain or message.chord:
            logger.warning("Task %s[%s]: its links, chain or chord are not followed yet", message.task, message.id)
        await self._run_task(job, self._attempted(job, message, task), task, unwanted)

    def _unwanted(self, message: TaskMessage) -> Revoked | None:
        """Why the message must not run, revoked or expired, if so."""
        if message.id in self._revoked:
            return Revoked("revoked")
        if message.expires is not None and parse_moment(message.expires) <= self._clock():
            return Revoked("expired")
        return None

    def _due(self, message: TaskMessage) -> float | None:
        """When the message wants to run, if that is in the future."""
        due = None if message.eta is None else parse_moment(message.eta)
        return due if due is not None and due > self._clock() else None

    def _attempted(self, job: Job, message: TaskMessage, task: Task[Any, Any] | None) -> Attempted:
        conf, delivery = self._queue.conf, job.delivery
        default = conf.task_ignore_result if task is None else task.ignore_result
        request = Request.of(
            message,
            hostname=self._name,
            delivery_info={
                "exchange": message.exchange,
                "routing_key": delivery.queue,
                "priority": message.priority,
                "redelivered": delivery.redelivered,
            },
            ignore_result=default if message.ignore_result is None else message.ignore_result,
            deliveries=delivery.deliveries,
            interruptions=delivery.interruptions,
        )
        job.request = request
        wanted = task.dead_letter if task is not None else False
        return Attempted(
            message=message,
            delivery=delivery,
            request=request,
            worker=self._name,
            acked=task is not None and not task.acks_late,
            extended=conf.result_extended,
            ignore_result=request.ignore_result,
            store_errors=task is None or task.store_errors_even_if_ignored,
            bury_failures=wanted is True or (wanted is not False and delivery.queue in wanted),
        )

    async def _run_task(self, job: Job, attempted: Attempted, task: Task[Any, Any], unwanted: Revoked | None) -> None:
        before = time.perf_counter()
        settlement = await self._not_to_run(attempted, task, unwanted)
        if settlement is None:
            settlement = await self._attempt(job, task, attempted)
        runtime = time.perf_counter() - before
        message = attempted.message
        if job.lease_lost:
            logger.error(
                "Task %s[%s] lost its lease (LEASE_LOST): another worker has it; nothing of this run was stored",
                task.name,
                message.id,
            )
            return
        if settlement.requeue:
            self._jobs.interrupted.append(job)
        elif not await self._settler.submit(Completion(settlement, job if job.held else None)):
            logger.error(
                "Task %s[%s] was done, but its lease was lost (LEASE_LOST): another worker has it, "
                "nothing of this run was stored",
                task.name,
                message.id,
            )
            return
        log_outcome(task.throws, message, settlement.outcome, runtime)

    async def _not_to_run(
        self, attempted: Attempted, task: Task[Any, Any], unwanted: Revoked | None
    ) -> Settlement | None:
        """The settlement of a message whose task must not run: revoked, expired, done already, or a killer."""
        if unwanted is not None:
            return self._settle(unwanted, attempted)
        delivery, message = attempted.delivery, attempted.message
        if not delivery.redelivered:
            return None
        if self._queue.conf.worker_deduplicate_successful_tasks:
            found = await self._settler.settled(message.id)
            if found is not None:
                return settle_again(found, attempted, now=self._clock(), tag=_new_tag)
        if delivery.deliveries > task.max_deliveries:
            error = WorkerLostError(
                f"{message.task}[{message.id}] was given to {delivery.deliveries - 1} workers that died with it."
            )
            return self._settle(GivenUp(error, burial.DELIVERIES), attempted)
        return None

    async def _attempt(self, job: Job, task: Task[Any, Any], attempted: Attempted) -> Settlement:
        if attempted.acked:
            # At most once: if this worker dies now, the task is not run again. From here on the lease is left
            # alone: a renewal that comes after the acknowledgement would take it for lost, and the job with it.
            job.held = False
            if not await self._settler.submit(Completion(Settlement(Ignored()), job)):
                job.lose()
        if task.track_started and not attempted.ignore_result:
            who = {"pid": os.getpid(), "hostname": self._name}
            record = self._queue.results.record(document(attempted, states.STARTED, who, None, self._clock()))
            await self._settler.submit(Completion(Settlement(Ignored(), record), None))
        settlement: Settlement | None = None
        with job.cancellable(self._jobs.torn_down), running(task, attempted.request, self._queue):
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
        if settlement is None and job.cancelled_as is None:
            # Nobody asked for it: its own code has cancelled the asyncio task that it runs in.
            settlement = self._settle(Failed(asyncio.CancelledError("the task has cancelled itself")), attempted)
        if settlement is None:
            settlement = self._settle(job.cancelled_as or Interrupted(), attempted)
            if attempted.acked and not job.started and isinstance(job.cancelled_as, Interrupted):
                # It was acknowledged, but its body has not begun: sending it again keeps it at most once.
                settlement = Settlement(job.cancelled_as, send=(self._again(job.delivery, job.delivery.body),))
        return settlement

    def _note_start(self, job: Job, message: TaskMessage) -> None:
        job.started = True
        logger.debug("Task %s[%s] started attempt=%d", message.task, message.id, message.retries + 1)

    def _settle(self, outcome: Outcome, attempted: Attempted) -> Settlement:
        record = self._queue.results.record
        return settle(outcome, attempted, now=self._clock(), tag=_new_tag, record=record)

    # -- what cannot run here

    async def _offer_again(
        self, job: Job, message: TaskMessage, unwanted: Revoked | None, error: NotRegistered
    ) -> None:
        """A task that is unknown here: in a rolling deploy others know it, or this worker's successor will."""
        conf, now = self._queue.conf, self._clock()
        found = marks(job.delivery.body)
        since, offers = found.get("unknown_since", now), int(found.get("offers", 0))
        if unwanted is not None or now - since > conf.unknown_task_timeout:
            attempted = self._attempted(job, message, None)
            settlement = self._settle(unwanted or GivenUp(error, burial.UNKNOWN), attempted)
            await self._settler.submit(Completion(settlement, job))
            log_outcome((), message, settlement.outcome, 0.0)
            return
        delay = min(conf.unknown_task_delay * 2.0 ** min(offers, 30), max(LONGEST_PARKING, conf.unknown_task_delay))
        self.repeated.log(
            logging.WARNING,
            f"offers of {message.task}, which is unknown here",
            "%s %s[%s] is offered again in %.1f s",
            error,
            message.task,
            message.id,
            delay,
        )
        body = mark(job.delivery.body, unknown_since=since, offers=offers + 1)
        await self._park(job, body, now + delay, offered=True)

    async def _park(self, job: Job, body: bytes, due: float, *, offered: bool = False) -> None:
        """Leave the message with the broker until it is due: no slot, no memory and no lease is held for it."""
        again = self._again(job.delivery, body, due, offered=offered)
        await self._settler.submit(Completion(Settlement(Ignored(), None, (again,)), job))

    def _again(self, delivery: Delivery, body: bytes, due: float | None = None, *, offered: bool = False) -> Outgoing:
        return Outgoing(delivery.queue, body, _new_tag(), delivery.priority, due, offered)

    async def _bury_at_last(self, job: Job, error: Exception) -> None:
        # Perhaps it was the result that was refused: then nobody can be told.
        for told in (True, False):
            try:
                await self._bury(job, burial.REFUSED, error, told=told)
                return
            except Exception:
                logger.exception("Cannot bury it either%s", "" if told else "; it comes back when its lease ends")
        job.held = False

    async def _bury(self, job: Job, reason: str, error: Exception, *, told: bool = True) -> None:
        """To the dead letters, with a failure for whoever waits, if the message at least says for which task."""
        letter = burial.dead_letter(reason, job.delivery, self._name, self._clock(), error)
        known = identify(job.delivery.body)
        if known is not None:
            letter = dataclasses.replace(letter, task_id=known[0], task=known[1])
        record = self._failure(known[0], error) if known is not None and told else None
        entry = burial.entry(letter, _new_tag())
        await self._settler.submit(Completion(Settlement(Ignored(), record, dead=entry), job))

    def _failure(self, task_id: str, error: Exception) -> StoredResult:
        found = ResultDocument(
            task_id=task_id,
            status=states.FAILURE,
            result=exception_to_data(error),
            date_done=format_moment(self._clock()),
        )
        return self._queue.results.record(found)


def _new_tag() -> str:
    return str(uuid4())
