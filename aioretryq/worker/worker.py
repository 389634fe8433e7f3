"""The worker, top to bottom: three nested groups, so that the order of stopping is the order of nesting."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from aioretryq.config import check
from aioretryq.errors import UnavailableError
from aioretryq.outage import Outage
from aioretryq.outcome import Interrupted
from aioretryq.topology import topology_of
from aioretryq.worker.attempts import Attempts
from aioretryq.worker.chords import ChordSweeper, Rescuer
from aioretryq.worker.control import Control, Pieces
from aioretryq.worker.events import Events, in_words
from aioretryq.worker.executor import Executor
from aioretryq.worker.fetcher import Fetcher, queue_order
from aioretryq.worker.handover import Handover
from aioretryq.worker.housekeeping import Housekeeping
from aioretryq.worker.jobs import LAST_SETTLEMENTS, Job, Jobs
from aioretryq.worker.names import node_name
from aioretryq.worker.revocations import Revocations
from aioretryq.worker.settler import Settler
from aioretryq.worker.sources import Sources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from anyio.abc import TaskStatus

    from aioretryq.app import TaskQueue

logger = logging.getLogger("aioretryq.worker")

STOP = (signal.SIGTERM, signal.SIGINT)
HEARS_WITHIN = 1.0
"""Seconds after which a worker counts as ready although it does not hear remote control yet."""
STOP_NOW = tuple(getattr(signal, name) for name in ("SIGQUIT",) if hasattr(signal, name))  # not on Windows


class Worker:
    """Runs the tasks of a queue.

    `queues` defaults to `task_queues`, or else the default queue. `concurrency`, `threads` and `grace` default to the
    settings.
    """

    def __init__(
        self,
        queue: TaskQueue,
        *,
        queues: Sequence[str] | None = None,
        concurrency: int | None = None,
        threads: int | None = None,
        grace: float | None = None,
        name: str | None = None,
    ) -> None:
        self.queue = queue
        self.queues = list(queues or topology_of(queue.conf).names)
        self.concurrency = _setting(queue, "worker_concurrency", concurrency)
        self.threads = _setting(queue, "worker_threads", threads)
        self.grace = _setting(queue, "worker_grace", grace)
        self.name = node_name(name)
        self.ready = asyncio.Event()
        self._jobs: Jobs | None = None
        self.dismissed = False
        """Whether it was told to stop by remote control: a supervisor does not start it again."""
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    def stop(self, *, now: bool = False) -> None:
        """Stop gracefully: take nothing more, give back what has not started, wait `grace` seconds for what
        runs, then cancel it and give it back. A second call, or `now`, ends the waiting."""
        if now or self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def dismiss(self) -> None:
        """Stop gracefully, and for good."""
        self.dismissed = True
        self.stop()

    @property
    def left_behind(self) -> bool:
        """Whether coroutines that swallow their cancellation outlive `run`, also when it has failed."""
        return self._jobs is not None and self._jobs.left_behind > 0

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    async def wait_stopping(self) -> None:
        """Until it begins to stop."""
        await self._stop.wait()

    async def run(self) -> None:
        """Work until stopped. Cancelling `run` is a stop without grace; messages come back by their leases.

        Raises the error of the piece that failed, if one did; servers that are gone are waited for.
        """
        async with AsyncExitStack() as opened:
            if not await self._open(opened):
                return
            await opened.enter_async_context(self.queue.worker_resources())
            broker, results, conf = self.queue.broker, self.queue.results, self.queue.conf
            outage = self.queue.connections.publisher.outage  # tasks that publish learn of it at once
            backend_outage = Outage(f"Result backend {results.backend.display_url}")
            lease = conf.lease
            jobs = self._jobs = Jobs(self.concurrency, lease=lease)
            revocations = Revocations()
            settler = Settler(broker, results, lease=lease, broker_outage=outage, backend_outage=backend_outage)
            events = Events(self.queue, jobs, name=self.name)
            attempts = Attempts(self.queue, jobs, settler, events, name=self.name, threads=self.threads)
            executor = Executor(self.queue, jobs, settler, attempts, events=events, revoked=revocations)
            sources = Sources(self.queue, self.queues, node=self.name, outage=outage)
            fetcher = Fetcher(broker, sources.queues, jobs, revocations, outage=outage, order=queue_order(conf))
            sources.describe(fetcher)
            handover = Handover(broker, self.name, sources.queues, fetcher)
            leases = handover.leases(jobs, lease=lease, blocked_limit=conf.worker_blocked_limit)
            housekeeping = Housekeeping(
                broker, results.backend, conf, executor.repeated, broker_outage=outage, backend_outage=backend_outage
            )
            sweeper = ChordSweeper(self.queue, broker_outage=outage, backend_outage=backend_outage)
            control = Control(Pieces(self, jobs, fetcher, revocations, executor, events, outage))

            async with anyio.create_task_group() as services:  # stops last
                for service in (settler, events, control, leases, housekeeping):
                    services.start_soon(service.run)
                services.start_soon(sweeper.run, Rescuer(self.queue, jobs, executor, revocations))
                services.start_soon(jobs.watch)
                async with jobs:  # drained, then cancelled and handed back
                    async with anyio.create_task_group() as intake:  # stops first
                        intake.start_soon(sources.run)
                        with anyio.move_on_after(HEARS_WITHIN):
                            await control.listening.wait()
                            await sources.listening.wait()
                        # Not before: whoever sees a task run may ask, or stop, the worker that runs it.
                        intake.start_soon(fetcher.run, executor)
                        self.ready.set()
                        await self._stop.wait()
                        jobs.accepting = False
                        intake.cancel_scope.cancel()
                    await fetcher.let_go()
                    await self._hand_back([job for job in jobs.all() if job.cancel_unstarted(Interrupted())], jobs)
                    await self._drain(jobs, fetcher)
                    await self._hand_back(jobs.all(), jobs)
                await sources.leave()
                await events.goodbye()
                services.cancel_scope.cancel()
            await handover.run()
            executor.repeated.sum_up()

    async def _open(self, opened: AsyncExitStack) -> bool:
        """Open the queue, waiting for servers that are not there yet; False when stopped meanwhile."""
        if not self.queue.conf.broker_connection_retry_on_startup:
            await opened.enter_async_context(self.queue)
            return True
        outage = Outage("The broker or result backend")
        async with anyio.create_task_group() as group:
            group.start_soon(self._cut_short, self._stop, group.cancel_scope)
            await outage.survive(lambda: opened.enter_async_context(self.queue))
            group.cancel_scope.cancel()
            return True
        return False

    async def _drain(self, jobs: Jobs, fetcher: Fetcher) -> None:
        if not len(jobs) or self._hurry.is_set():
            return
        logger.info("Stopping: %d tasks have %.0f s to finish", len(jobs), self.grace)
        with anyio.move_on_after(self.grace):
            async with anyio.create_task_group() as group:
                group.start_soon(self._cut_short, self._hurry, group.cancel_scope)
                group.start_soon(fetcher.run_revocations)
                await jobs.wait_idle()
                group.cancel_scope.cancel()

    async def _cut_short(self, event: asyncio.Event, scope: anyio.CancelScope) -> None:
        await event.wait()
        scope.cancel()

    async def _hand_back(self, interrupted: list[Job], jobs: Jobs) -> None:
        """Cancel these and put their messages back to the front of their queues, in the order they came.

        Completions that are on their way to the servers are not cancelled, they get a few seconds; if they cannot
        be delivered then, the tasks run again. So does the clean-up of a cancelled task; whoever swallows the
        cancellation is left behind, without the message.
        """
        for job in interrupted:
            job.cancel(Interrupted())
        await jobs.wait_for(interrupted, LAST_SETTLEMENTS)
        for job in [job for job in interrupted if not job.finished]:
            if job.held:
                jobs.interrupted.append(job)
            if job.in_body:
                jobs.leave_behind(job)
            else:
                again = "it runs again" if job.held else "it was acknowledged early, and is lost"
                logger.error("Task %s was done, but its result cannot be delivered now: %s", job.name, again)
                job.abandon()
        if back := [job.delivery for job in jobs.take_interrupted()]:
            try:
                await self.queue.broker.requeue(back)
                logger.warning("%d messages are back in their queues", len(back))
            except UnavailableError as error:
                logger.error("%d messages come back when their leases end: %s", len(back), error)

    # -- ways to run it

    async def run_until_signalled(self) -> None:
        """`run`, stopped by TERM or INT; a second signal ends the grace, and QUIT does so at once."""
        async with anyio.create_task_group() as group:
            await group.start(self._listen_for_signals)
            await self.run()
            group.cancel_scope.cancel()

    async def _listen_for_signals(self, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(*STOP, *STOP_NOW) as signals:
            task_status.started()
            async for received in signals:
                logger.warning("Got %s", received.name)
                self.stop(now=received in STOP_NOW)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Worker]:
        """Run inside this process, for tests and development; leaving the block stops it gracefully."""
        # A plain task, not a task group around the `yield`: fixtures leave in another task than they entered.
        task = asyncio.create_task(self.run(), name=f"aioretryq-worker-{self.name}")
        task.add_done_callback(self._note_end)
        waiting = asyncio.ensure_future(self.ready.wait())
        try:
            await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
            yield self
        finally:
            waiting.cancel()
            self.stop()
            await task

    def _note_end(self, task: asyncio.Task[None]) -> None:
        # Whoever waits for results inside the block would otherwise not know why none comes.
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("Worker %s has failed", self.name, exc_info=error)

    def banner(self) -> str:
        """What the worker is connected to and would do; shown when it starts."""
        queue = self.queue
        names = sorted(queue.tasks)
        results = queue.results_at or queue.results.backend.display_url
        lines = [
            f"aioretryq worker {self.name} (pid {os.getpid()}, Python {sys.version.split()[0]})",
            f"  broker       {queue.broker.display_url}",
            f"  results      {results}",
            f"  queues       {', '.join(self.queues)}",
            f"  concurrency  {self.concurrency} coroutines, {self.threads} threads",
            f"  events       {in_words(queue.conf)}",
            f"  tasks        {len(names)}",
            *[f"    . {name}" for name in names],
            *[f"  WARNING      {text}" for text in self.warnings()],
        ]
        return "\n".join(lines)

    def warnings(self) -> list[str]:
        queue = self.queue
        found = []
        if not queue.tasks:
            found.append("no task is registered: does the application import the modules that define them?")
        if "pickle" in queue.conf.accept_content:
            found.append("accept_content allows pickle: whoever can write to the broker can run any code here")
        if queue.results_at is None:
            found.append("no result backend: results are dropped, get() raises")
        if early := sorted(name for name, task in queue.tasks.items() if not task.acks_late):
            found.append(f"early acknowledgement (lost if this worker dies): {', '.join(early)}")
        if limited := sorted(n for n, task in queue.tasks.items() if task.limited and not task.is_coroutine):
            found.append(
                "time_limit and soft_time_limit have no effect on plain functions, threads cannot be stopped: "
                f"{', '.join(limited)}"
            )
        if queue.broker_url.startswith("memory:"):
            found.append("memory:// reaches only this process")
        return found


def _setting(queue: TaskQueue, name: str, given: Any) -> Any:
    """What was given, checked as the setting would be; or the setting."""
    return getattr(queue.conf, name) if given is None else check(name, given)
