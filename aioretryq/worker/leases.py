"""Keeps what this worker holds its own, and brings back what dead workers held: in a thread of its own.

A task that blocks the event loop would otherwise cost all others their leases. The thread has an event loop and a
connection of its own (`Broker.twin`); it renews first and only then looks for what others have lost, so that after
an outage nobody takes what somebody alive still runs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio

from aioretryq.drivers.wakeup import Wakeup
from aioretryq.errors import AioretryqError
from aioretryq.outage import Outage
from aioretryq.worker.blocking import BlockedLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from aioretryq.brokers.base import Broker
    from aioretryq.worker.jobs import Job, Jobs

logger = logging.getLogger("aioretryq.worker")

CANCEL_AGAIN = 0.5
THREAD_ENDS = 5.0
"""Seconds the thread gets to close its connection; it is a daemon, and holds nothing that would be lost."""


class Leases:
    """Every fifth of a lease: renew everything held here, then put back what nobody renews any more.

    In between goes back what was fetched and could not start in time: the event loop is blocked.
    """

    def __init__(
        self,
        broker: Broker,
        jobs: Jobs,
        *,
        lease: float,
        blocked_limit: float,
        worker: str = "",
        queues: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._broker = broker
        self._jobs = jobs
        self._lease = lease
        self._blocked_limit = blocked_limit
        self._worker = worker
        self._queues = queues
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled; raises what ends the thread."""
        loop = asyncio.get_running_loop()
        keeper = _Thread(self, self._broker, BlockedLoop(loop, self._jobs, limit=self._blocked_limit), loop)
        keeper.start()
        end = asyncio.wrap_future(keeper.ended)
        # Where another piece has failed first nobody looks at this one's error: asyncio would complain.
        end.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            await asyncio.shield(end)
        finally:
            keeper.stop()
            with anyio.move_on_after(THREAD_ENDS, shield=True):
                await asyncio.wait([end])

    async def keep(self, twin: Broker, outage: Outage, loop: asyncio.AbstractEventLoop, blocked: BlockedLoop) -> None:
        """The thread's work, on its own event loop; `loop` is the worker's."""
        while True:
            if not blocked.past_limit:
                await outage.survive(lambda: self._renew(twin, loop))
                await outage.survive(lambda: self._give_back(twin))
                sweep = functools.partial(twin.recover, worker=self._worker, queues=self._queues())
                if count := await outage.survive(sweep):
                    logger.warning("%d messages of workers that are gone are back in their queues", count)
            await asyncio.sleep(self._lease / 5)

    async def _give_back(self, twin: Broker) -> None:
        if stale := self._jobs.ahead.take_stale():
            try:
                await twin.requeue(stale)
            except BaseException:
                self._jobs.ahead.put_back(stale)
                raise

    async def _renew(self, twin: Broker, loop: asyncio.AbstractEventLoop) -> None:
        held, now = self._jobs.held(), self._clock()
        ours = await twin.extend([job.delivery for job in held])
        for job, still in zip(held, ours, strict=True):
            if still:
                job.leased_until = now + self._lease
            elif job.held:
                loop.call_soon_threadsafe(_lose, job)


def _lose(job: Job) -> None:
    # A job that was settled meanwhile has no lease either.
    if job.held and not job.finished:
        job.lose()


class _Thread(threading.Thread):
    """Runs `Leases.keep` and the watch over the worker's loop, until it is stopped."""

    def __init__(self, leases: Leases, broker: Broker, blocked: BlockedLoop, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name="aioretryq-leases", daemon=True)
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._leases = leases
        self._broker = broker
        self._blocked = blocked
        self._loop = loop
        self._stopping = threading.Event()
        self._wake: Callable[[], None] | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._work())
        except AioretryqError as error:
            self.ended.set_exception(error)
        except Exception as error:
            logger.exception("The thread that renews leases has failed")
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)

    def stop(self) -> None:
        """From any thread, also when it has ended or has not begun."""
        self._stopping.set()
        if self._wake is not None:
            self._wake()

    async def _work(self) -> None:
        stop = Wakeup()
        self._wake = stop.set
        if self._stopping.is_set():
            return
        outage = Outage(f"Broker {self._broker.display_url}, for leases,", quiet=True)
        twin = self._broker.twin()
        if not await _until(stop, outage.survive(twin.__aenter__)):
            return
        try:
            await _until(stop, self._leases.keep(twin, outage, self._loop, self._blocked), self._blocked.watch())
        finally:
            await twin.__aexit__(None, None, None)


async def _until(stop: Wakeup, *work: Coroutine[Any, Any, object]) -> bool:
    """Run these until one of them ends or `stop` is set; what still runs then is cancelled.

    Whether all came to their end: one that swallows its cancellation does.
    """
    tasks = [asyncio.ensure_future(each) for each in work]
    waiting = asyncio.ensure_future(stop.wait())
    await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
    while pending := [task for task in (*tasks, waiting) if not task.done()]:
        for task in pending:
            task.cancel()
        # Again, should it still run then: a driver that is connecting may swallow a cancellation.
        await asyncio.wait(pending, timeout=CANCEL_AGAIN)
    for task in tasks:
        if not task.cancelled():
            task.result()
    return not any(task.cancelled() for task in tasks)
