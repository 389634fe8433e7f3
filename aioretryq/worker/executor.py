"""One message, from its bytes to its settlement."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from msgspec.structs import replace

from aioretryq import states
from aioretryq.context import Request
from aioretryq.errors import NotOpenError, NotRegistered, ProtocolError, WorkerLostError
from aioretryq.execution import running
from aioretryq.foreign import ForeignTask
from aioretryq.message import Outgoing
from aioretryq.outcome import Failed, GivenUp, Ignored, Interrupted, Outcome, RetryAsked, Revoked
from aioretryq.protocol.envelope import mark, marks
from aioretryq.protocol.exceptions import exception_to_data
from aioretryq.protocol.result import ResultDocument
from aioretryq.protocol.saferepr import inline
from aioretryq.protocol.task import format_moment, identify, parse_moment
from aioretryq.revoking import REVOCATION_TTL
from aioretryq.worker import burial
from aioretryq.worker.attempts import new_tag
from aioretryq.worker.conclusion import Conclusions
from aioretryq.worker.followups import NOTHING, check_workflow, is_large, is_part_of_workflow, is_unchecked
from aioretryq.worker.limits import Limits
from aioretryq.worker.log import Repeated, log_outcome
from aioretryq.worker.parked import Parked
from aioretryq.worker.run_options import RunOptions
from aioretryq.worker.settlement import Attempted, Settlement, settle, settle_again
from aioretryq.worker.settler import Completion

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aioretryq.app import TaskQueue
    from aioretryq.message import Delivery, StoredResult, TaskMessage
    from aioretryq.task import Task
    from aioretryq.worker.attempts import Attempts
    from aioretryq.worker.events import Events
    from aioretryq.worker.jobs import Job, Jobs
    from aioretryq.worker.revocations import Revocations
    from aioretryq.worker.settler import Settler

logger = logging.getLogger("aioretryq.worker")

SUSPECTS_APART = 0.5
"""Seconds until a suspect is offered again, while another one runs here."""

LONGEST_PARKING = 60.0
"""Seconds between two offers of a task that nobody knows, at most."""


class Executor:
    """Takes a job through decoding, checks, the run, and settlement. Holds nothing of any job itself."""

    def __init__(
        self,
        queue: TaskQueue,
        jobs: Jobs,
        settler: Settler,
        attempts: Attempts,
        *,
        events: Events,
        revoked: Revocations,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._jobs = jobs
        self._settler = settler
        self._events = events
        self.repeated = Repeated()
        self._name = attempts.name
        self._attempts = attempts
        self._revoked = revoked
        self._clock = clock
        self._options: dict[str, tuple[Task[Any, Any], tuple[int, int], RunOptions]] = {}
        self._conclusions = Conclusions(queue, jobs, settler, attempts.followups, clock=clock)
        self.limits = Limits(queue.conf, clock=clock)
        self.parked = Parked(self._name, clock=clock)

    async def run(self, job: Job) -> None:
        """Ends when the job's message is settled, or noted for being handed back."""
        try:
            await self._process(job)
        except NotOpenError:
            logger.warning("Task %s comes back when its lease ends: this worker is being torn down", job.name)
        except Exception as error:
            # A server refused the settlement, or it could not even be encoded: retrying would not help, and
            # running the task again neither. One message must never end the worker and all that runs in it.
            logger.exception("Cannot settle a message of queue %s; it goes to the dead letters", job.delivery.queue)
            await self._bury_at_last(job, error)

    async def _process(self, job: Job) -> None:
        try:
            message = self._queue.decode(job.delivery.body)
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
        job.task_id, job.message = message.id, message
        self.parked.gone(message.id)
        unwanted = self._unwanted(message)
        due = None if unwanted else self._due(message, job.delivery.body)
        if due is not None:
            long = {"long": 1.0} if due > self._clock() + REVOCATION_TTL else {}
            await self._park(job, mark(job.delivery.body, parked=due, **long), due)
            return
        try:
            task = self._queue.find_task(message.task)
        except NotRegistered as error:
            await self._offer_again(job, message, unwanted, error)
            return
        place = None if unwanted else self.limits.place(task, job.delivery.body)
        if place is not None:
            await self._park(job, mark(job.delivery.body, **place.marks), place.due)
            return
        await self._run_task(job, self._attempted(job, message, task), task, unwanted)

    def _unwanted(self, message: TaskMessage) -> Revoked | None:
        """Why the message must not run, revoked or expired, if so."""
        if self._revoked.unwanted(message):
            return Revoked("revoked")
        if message.expires is not None and parse_moment(message.expires) <= self._clock():
            return Revoked("expired")
        return None

    def _due(self, message: TaskMessage, body: bytes) -> float | None:
        """When the message wants to run, if that is in the future.

        Not if it was parked until then: the broker's clock says that it is due, and ours may be behind.
        """
        due = None if message.eta is None else parse_moment(message.eta)
        if due is None or due <= self._clock() or marks(body).get("parked") == due:
            return None
        return due

    def _attempted(self, job: Job, message: TaskMessage, task: Task[Any, Any] | None) -> Attempted:
        delivery, options = job.delivery, self._options_of(task)
        ignore = options.ignore_result if message.ignore_result is None else message.ignore_result
        request = Request.of(
            message,
            hostname=self._name,
            delivery_info={
                "exchange": message.exchange,
                "routing_key": delivery.queue,
                "priority": message.priority,
                "redelivered": delivery.redelivered,
            },
            ignore_result=ignore,
            deliveries=delivery.deliveries,
            interruptions=delivery.interruptions,
        )
        self.limits.apply(request)
        job.request = request
        return Attempted(
            message=message,
            delivery=delivery,
            request=request,
            worker=self._name,
            options=options,
            acked=not options.acks_late,
            extended=self._queue.conf.result_extended,
            ignore_result=ignore,
        )

    def _options_of(self, task: Task[Any, Any] | None) -> RunOptions:
        if task is None:
            return RunOptions.of_unknown(self._queue.conf)
        changes = task.changes, self._queue.conf.changes
        found = self._options.get(task.name)
        if found is None or found[0] is not task or found[1] != changes:
            with running(task, Request(), self._queue):  # or a shared task would ask the settings of another queue
                found = self._options[task.name] = (task, changes, RunOptions.of(task))
        return found[2]

    async def _run_task(self, job: Job, attempted: Attempted, task: Task[Any, Any], unwanted: Revoked | None) -> None:
        message, delivery = attempted.message, attempted.delivery
        self._events.received(message)
        settlement = None
        # Nearly always all of this is asked in vain, and an `await` more for every task is not for nothing.
        if unwanted or delivery.redelivered or message.eta is not None or is_unchecked(message):
            settlement = await self._not_to_run(attempted, task, unwanted)
        if settlement is None:
            if delivery.deliveries > 1 and await self._put_aside(job, delivery, task):
                return
            settlement = await self._attempts.run(job, task, attempted)
        runtime = max(0.0, time.time() - job.started_at) if job.started and job.started_at is not None else 0.0
        if job.lease_lost:
            logger.error(
                "Task %s[%s] lost its lease (LEASE_LOST): another worker has its message, or the server has lost it; "
                "nothing of this run was stored",
                task.name,
                inline(message.id),
            )
            return
        if isinstance(task, ForeignTask) and not settlement.traced:
            settlement = await self._conclude(task, attempted, settlement)
        if settlement.requeue:
            self._jobs.interrupted.append(job)
        elif not await self._conclusions.conclude(job, settlement, attempted):
            logger.error(
                "Task %s[%s] was done, but its lease was lost (LEASE_LOST): another worker has its message, or the "
                "server has lost it; nothing of this run was stored",
                task.name,
                inline(message.id),
            )
            return
        self._events.settled(job, message, settlement, runtime)
        if not settlement.traced or settlement.dead is not None:  # the other library has said the rest
            log_outcome(task.throws, message, settlement, runtime)
        if job.plain and isinstance(settlement.outcome, Failed | RetryAsked):
            # The thread's frames are part of a cycle: what they hold would stay until somebody looks for cycles.
            traceback.clear_frames(settlement.outcome.exc.__traceback__)

    async def _conclude(self, task: ForeignTask, attempted: Attempted, settlement: Settlement) -> Settlement:
        """Of what this worker decides about a foreign task, its library stores the result and sends what follows."""
        if settlement.requeue or (isinstance(settlement.outcome, Interrupted) and settlement.send):
            return settlement
        if await task.conclude(attempted.message, attempted.request, settlement.outcome):
            return replace(settlement, record=None, send=(), following=NOTHING)
        return settlement

    async def _not_to_run(
        self, attempted: Attempted, task: Task[Any, Any], unwanted: Revoked | None
    ) -> Settlement | None:
        """The settlement of a message whose task must not run: revoked, expired, done already, or a killer."""
        if unwanted is not None:
            return self._settle(unwanted, attempted)
        try:
            if is_large(attempted):
                await anyio.to_thread.run_sync(check_workflow, attempted.message)
            elif is_part_of_workflow(attempted.message):
                check_workflow(attempted.message)
        except ProtocolError as broken:
            return self._settle(GivenUp(broken, burial.BROKEN), attempted)
        delivery, message = attempted.delivery, attempted.message
        if "long" in marks(delivery.body) and await self._is_revoked(message.id):
            return self._settle(Revoked("revoked"), attempted)
        if not delivery.redelivered:
            return None
        # A result is of this message only if a worker may have died after storing it: ids can be used again.
        if delivery.deliveries > 1 and self._queue.conf.worker_deduplicate_successful_tasks:
            found = await self._settler.settled(message.id)
            settlement = None if found is None else self._settle_again(task, attempted, found)
            if settlement is not None:
                return settlement
        if delivery.deliveries > task.max_deliveries:
            error = WorkerLostError(
                f"{message.task}[{message.id}] was given to {delivery.deliveries - 1} workers; each died with it or "
                "lost its lease (a crash, a blocked event loop, a cut connection)."
            )
            return self._settle(GivenUp(error, burial.DELIVERIES), attempted)
        return None

    async def _is_revoked(self, task_id: str) -> bool:
        """Of a task that was parked for longer than revocations are remembered."""
        found = await self._settler.settled(task_id)
        return found is not None and found.status == states.REVOKED

    def _settle_again(self, task: Task[Any, Any], attempted: Attempted, found: ResultDocument) -> Settlement | None:
        if isinstance(task, ForeignTask) and not task.is_done(attempted.message, found):
            return None
        self._events.found(attempted.message, found)
        if isinstance(task, ForeignTask):
            return Settlement(Ignored())
        followups = self._attempts.followups
        return settle_again(found, attempted, now=self._clock(), tag=new_tag, followups=followups)

    async def _put_aside(self, job: Job, delivery: Delivery, task: Task[Any, Any]) -> bool:
        """Whether a message that was delivered before has to wait.

        It is suspected of killing its workers. At their last chance a worker tries one suspect at a time: whoever
        only ran beside the killer survives it now.
        """
        if delivery.deliveries < task.max_deliveries:
            self._jobs.decided(job)
        elif not self._jobs.alone(job):
            await self._park(job, delivery.body, self._clock() + SUSPECTS_APART)
            return True
        else:
            self._jobs.decided(job)
            await self._jobs.others_decided()
        logger.warning(
            "Task %s is given to a worker again (%d of %d): the one before died with it, or lost its lease",
            job.name,
            delivery.deliveries,
            task.max_deliveries,
        )
        return False

    def _settle(self, outcome: Outcome, attempted: Attempted) -> Settlement:
        record = self._queue.results.record
        followups = self._attempts.followups
        return settle(outcome, attempted, now=self._clock(), tag=new_tag, record=record, followups=followups)

    # -- what cannot run here

    async def _offer_again(
        self, job: Job, message: TaskMessage, unwanted: Revoked | None, error: NotRegistered
    ) -> None:
        """A task that is unknown here: in a rolling deploy others know it, or this worker's successor will."""
        conf, now = self._queue.conf, self._clock()
        found = marks(job.delivery.body)
        since, offers = min(found.get("unknown_since", now), now), int(found.get("offers", 0))
        if unwanted is not None or now - since > conf.unknown_task_timeout:
            attempted = self._attempted(job, message, None)
            settlement = self._settle(unwanted or GivenUp(error, burial.UNKNOWN), attempted)
            await self._conclusions.conclude(job, settlement, attempted)
            self._events.received(message)
            self._events.settled(job, message, settlement, 0.0)
            log_outcome((), message, settlement, 0.0)
            return
        delay = min(conf.unknown_task_delay * 2.0 ** min(offers, 30), max(LONGEST_PARKING, conf.unknown_task_delay))
        self.repeated.log(
            logging.WARNING,
            f"offers of {inline(message.task)}, which is unknown here",
            "%s %s[%s] is offered again in %.1f s",
            error,
            inline(message.task),
            inline(message.id),
            delay,
        )
        body = mark(job.delivery.body, unknown_since=since, offers=offers + 1)
        await self._park(job, body, now + delay, offered=True)

    async def _park(self, job: Job, body: bytes, due: float, *, offered: bool = False) -> None:
        """Leave the message with the broker until it is due: no slot, no memory and no lease is held for it."""
        delivery = job.delivery
        self.parked.note(job, due)
        again = Outgoing(
            delivery.queue,
            body,
            new_tag(),
            delivery.priority,
            due,
            offered,
            deliveries=delivery.deliveries - 1,  # it has not been tried
            interruptions=delivery.interruptions,
        )
        await self._settler.submit(Completion(Settlement(Ignored(), None, (again,)), job))

    async def _bury_at_last(self, job: Job, error: Exception) -> None:
        bury = partial(self._bury, job, burial.REFUSED, error)
        # Perhaps it was the result that was refused: then nobody can be told.
        ways: list[Callable[[], Awaitable[None]]] = [bury, partial(bury, told=False)]
        if job.message is not None and is_part_of_workflow(job.message):
            ways.insert(0, partial(self._give_up, job, job.message, error))
        for way in ways:
            try:
                await way()
                return
            except Exception:
                again = "" if way is not ways[-1] else "; it comes back when its lease ends"
                logger.exception("Cannot bury it either%s", again)
        job.held = False

    async def _give_up(self, job: Job, message: TaskMessage, error: Exception) -> None:
        """Bury it with what follows: a chord that it is a part of waits for it."""
        task = None
        with contextlib.suppress(NotRegistered):
            task = self._queue.find_task(message.task)
        attempted = self._attempted(job, message, task)
        await self._conclusions.conclude(job, self._settle(GivenUp(error, burial.REFUSED), attempted), attempted)

    async def _bury(self, job: Job, reason: str, error: Exception, *, told: bool = True) -> None:
        """To the dead letters, with a failure for whoever waits, if the message at least says for which task."""
        letter = burial.dead_letter(reason, job.delivery, self._name, self._clock(), error)
        known = identify(job.delivery.body)
        if known is not None:
            letter = dataclasses.replace(letter, task_id=known[0], task=known[1])
        record = self._failure(known[0], error) if known is not None and told else None
        entry = burial.entry(letter, new_tag())
        await self._settler.submit(Completion(Settlement(Ignored(), record, dead=entry), job))

    def _failure(self, task_id: str, error: Exception) -> StoredResult:
        found = ResultDocument(
            task_id=task_id,
            status=states.FAILURE,
            result=exception_to_data(error),
            date_done=format_moment(self._clock()),
        )
        return self._queue.results.record(found)
