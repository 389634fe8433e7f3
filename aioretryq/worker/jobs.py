"""The messages a worker holds, and what is known of each: the worker's only shared state."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Self

import anyio
from msgspec import Struct

from aioretryq.outcome import Interrupted, Revoked
from aioretryq.protocol.saferepr import inline
from aioretryq.worker.ahead import Ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from types import TracebackType
    from typing import Any

    from aioretryq.context import Request
    from aioretryq.message import Delivery, TaskMessage

logger = logging.getLogger("aioretryq.worker")

STARTING = threading.Lock()
"""Held for a moment: a body begins, in whatever thread, or its job is cancelled before. One for all jobs."""

LAST_SETTLEMENTS = 3.0
"""Seconds that cancelled jobs get for their clean-up and their last completions; then they are left behind."""


class Job(Struct, eq=False):
    """One claimed message on its way through the worker.

    Who cancels a job records why first (`cancel`); it is never inferred afterwards.
    """

    number: int  # in the order of claiming
    delivery: Delivery
    leased_until: float  # unix seconds, by this machine's clock; set by the thread that renews leases
    task_id: str | None = None
    message: TaskMessage | None = None  # once it is decoded
    request: Request | None = None  # once its task is known
    plain: bool = False  # a plain function, which only a thread can run
    started: bool = False  # the body has begun
    started_at: float | None = None  # unix seconds
    held: bool = True  # not acknowledged: its lease has to be renewed
    lease_lost: bool = False  # somebody else's now: nothing of it may be settled
    settling: bool = False  # its body has ended, and the servers are told of it
    cancelled_as: Interrupted | Revoked | None = None
    task: asyncio.Task[None] | None = None
    in_body: bool = False
    """Whether user code runs: not while a completion is on its way to the servers."""

    def cancellable(self, torn_down: Callable[[], bool]) -> Cancellable:
        """The part of the job that `cancel` ends; what comes before and after it is not torn.

        A plain asyncio task and its `cancel` do here what a task group and a scope would, at a tenth of the cost.
        """
        return Cancellable(self, torn_down)

    @property
    def name(self) -> str:
        """As the log calls it."""
        return f"{inline(self.request.task) if self.request is not None else ''}[{inline(self.task_id)}]"

    @property
    def in_thread(self) -> bool:
        """Whether cancelling it does not stop its body."""
        return self.plain and self.started

    @property
    def cancelling(self) -> bool:
        return self.task is not None and self.task.cancelling() > 0

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do for it: its message is settled, or noted for being handed back."""
        return self.task is not None and self.task.done()

    def cancel_unstarted(self, reason: Interrupted) -> bool:
        """Cancel it if its body has not begun; from then on it will not."""
        with STARTING:
            if self.started:
                return False
            self.cancel(reason)
            return True

    def cancel(self, reason: Interrupted | Revoked) -> None:
        if self.cancelled_as is None:
            self.cancelled_as = reason
            if self.request is not None:
                self.request.cancel_reason = reason.text
            if self.in_body:
                self.abandon()

    def abandon(self) -> None:
        """Stop the job wherever it is; its message comes back when its lease ends."""
        if self.task is not None:
            self.task.cancel(None if self.cancelled_as is None else self.cancelled_as.text)

    def uncancel(self) -> None:
        if self.task is not None:
            self.task.uncancel()

    def lose(self) -> None:
        """Its message is somebody else's now."""
        self.lease_lost = True
        self.held = False
        self.cancel(Interrupted("LEASE_LOST"))


class Cancellable:
    """See `Job.cancellable`. A class, for a generator would take three times as long, twice for each task."""

    __slots__ = ("_job", "_torn_down")

    def __init__(self, job: Job, torn_down: Callable[[], bool]) -> None:
        self._job = job
        self._torn_down = torn_down

    def __enter__(self) -> None:
        self._job.in_body = True

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> bool:
        job = self._job
        job.in_body = False
        if not job.cancelling and exc is None:  # nearly always
            return False
        while job.cancelling and not self._torn_down():
            job.uncancel()
        # While the worker itself is torn down nothing is settled any more.
        return isinstance(exc, asyncio.CancelledError) and not self._torn_down()


class Jobs:
    """All jobs of a worker: at most `limit` run at once, and as many are being settled.

    A job that is being settled holds no place, which would stand idle until the servers answer. Where they do not, no
    more than those are begun.

    `async with` them: whatever still runs at the end of the block is cancelled, and comes back by its lease.
    """

    def __init__(self, limit: int, *, lease: float, clock: Callable[[], float] = time.time) -> None:
        self.limit = limit
        self.accepting = True
        self.ahead = Ahead(lease=lease)
        self.interrupted: list[Job] = []
        self.totals: Counter[str] = Counter()  # started, by the name of the task
        self.left_behind = 0
        self._lease = lease
        self._clock = clock
        self._jobs: dict[asyncio.Task[None], Job] = {}
        self._settling = 0
        self._numbers = itertools.count()
        self._changed = asyncio.Event()
        self._suspect: Job | None = None
        self._undecided: set[Job] = set()
        self._bug: BaseException | None = None
        self._failed = asyncio.Event()
        self._ending = False
        self._owner: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._ending = True
        with anyio.CancelScope(shield=True):
            await self.end(self.all())

    def torn_down(self) -> bool:
        """Whether the worker is being torn down: `run` was cancelled, or a piece of it has failed."""
        return self._ending or (self._owner is not None and self._owner.cancelling() > 0)

    def __len__(self) -> int:
        return len(self._jobs)

    def all(self) -> list[Job]:
        return list(self._jobs.values())

    def held(self) -> list[Job]:
        """Those whose leases have to be renewed. Any thread may ask."""
        return [job for job in self.all() if job.held]

    # -- running

    def start(self, delivery: Delivery, claimed_at: float, run: Callable[[Job], Coroutine[Any, Any, None]]) -> Job:
        """Run a job in a task of its own; an exception of `run` itself ends the worker (see `watch`)."""
        job = Job(next(self._numbers), delivery, claimed_at + self._lease)
        if delivery.deliveries > 1:
            self._undecided.add(job)
        task = job.task = asyncio.get_running_loop().create_task(run(job))
        self._jobs[task] = job
        task.add_done_callback(self._ended)
        return job

    # Of messages that are suspected of killing their workers one is tried at a time.

    def alone(self, job: Job) -> bool:
        """Whether this is the only suspect here, until it ends."""
        if self._suspect is None:
            self._suspect = job
        return self._suspect is job

    def decided(self, job: Job) -> None:
        """It is clear whether a job that was delivered before is a suspect, and what becomes of it now."""
        self._undecided.discard(job)
        self._changed.set()

    async def others_decided(self) -> None:
        """A suspect that kills at once must not take those with it that are being put aside for its sake."""
        while self._undecided:
            self._changed.clear()
            await self._changed.wait()

    def settle(self, job: Job) -> None:
        """Its body has ended, and only the servers' answer is missing: another one may begin."""
        if not job.settling:  # it may take two attempts, where a server refuses the first one
            job.settling = True
            self._settling += 1
            self._changed.set()

    def _remove(self, task: asyncio.Task[None]) -> Job | None:
        job = self._jobs.pop(task, None)
        if job is not None and job.settling:
            self._settling -= 1
        self._changed.set()
        return job

    def _ended(self, task: asyncio.Task[None]) -> None:
        job = self._remove(task)
        if job is not None and job.delivery.deliveries > 1:
            self._undecided.discard(job)
            if self._suspect is job:
                self._suspect = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._bug = error
            self._failed.set()

    async def watch(self) -> None:
        """Raises the exception of the first job that has one: that is a bug of ours, not of a task."""
        await self._failed.wait()
        assert self._bug is not None
        raise self._bug

    async def end(self, jobs: list[Job]) -> None:
        """Cancel these wherever they are and wait a moment; those that swallow it are left behind."""
        tasks = {job.task: job for job in jobs if job.task is not None and not job.task.done()}
        if not tasks:
            return
        for job in tasks.values():
            job.abandon()
        _, pending = await asyncio.wait(tasks, timeout=1.0)
        for task in pending:
            self.leave_behind(tasks[task])

    def leave_behind(self, job: Job) -> None:
        """Forget a job whose coroutine does not end; whatever it still does, nothing of it is settled."""
        job.lose()
        self._undecided.discard(job)
        if job.task is not None and self._remove(job.task) is not None:
            self.left_behind += 1
            logger.error("Task %s swallows its cancellation and is left behind", job.name)

    def begin(self, job: Job) -> bool:
        """A body is about to begin, in whatever thread; False if its job has been cancelled before."""
        with STARTING:
            job.started = job.cancelled_as is None
            job.started_at = time.time()
            if job.started and job.message is not None:
                self.totals[job.message.task] += 1
        return job.started

    def resize(self, limit: int) -> None:
        self.limit = limit
        self._changed.set()

    # -- waiting

    @property
    def room(self) -> int:
        running = len(self._jobs) - self._settling
        return self.limit - max(running, len(self._jobs) - self.limit)

    async def wait_room(self, timeout: float) -> int:
        """How many more jobs there is room for; waits for the first place, at most `timeout` seconds."""
        with anyio.move_on_after(timeout):
            while self.room <= 0:
                self._changed.clear()
                await self._changed.wait()
        return self.room

    async def wait_for(self, jobs: Iterable[Job], timeout: float) -> None:
        """Until these have finished, at most `timeout` seconds."""
        if tasks := [job.task for job in jobs if job.task is not None]:
            await asyncio.wait(tasks, timeout=timeout)

    async def wait_idle(self) -> None:
        while self._jobs:
            self._changed.clear()
            await self._changed.wait()

    def take_interrupted(self) -> list[Job]:
        """Those whose messages go back, in the order they were claimed."""
        taken, self.interrupted = sorted(self.interrupted, key=lambda job: job.number), []
        return taken
