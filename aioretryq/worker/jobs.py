"""The messages a worker holds, and what is known of each: the worker's only shared state."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from aioretryq.outcome import Interrupted, Revoked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aioretryq.message import Delivery


@dataclass(eq=False, slots=True)
class Job:
    """One claimed message on its way through the worker.

    Who cancels a job records why first (`cancel`); it is never inferred afterwards.
    """

    number: int  # in the order of claiming
    delivery: Delivery
    task_id: str | None = None
    started: bool = False  # the body has begun
    held: bool = True  # not acknowledged: its lease has to be renewed
    lease_lost: bool = False  # somebody else's now: nothing of it may be settled
    cancelled_as: Interrupted | Revoked | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    _cancellable: bool = False

    @contextmanager
    def cancellable(self) -> Iterator[None]:
        """The part of the job that `cancel` ends; what comes before and after it is not torn.

        A plain asyncio task and its `cancel` do here what a task group and a scope would, at a tenth of the cost.
        """
        self._cancellable = True
        try:
            yield
        except asyncio.CancelledError:
            if self.cancelled_as is None:
                raise  # not ours: the worker itself is being torn down
        finally:
            self._cancellable = False
            if self.task is not None and self.cancelled_as is not None and self.task.cancelling():
                self.task.uncancel()

    def cancel(self, reason: Interrupted | Revoked) -> None:
        if self.cancelled_as is None:
            self.cancelled_as = reason
            if self._cancellable:
                self.abandon()

    def abandon(self) -> None:
        """Stop the job wherever it is; its message comes back when its lease ends."""
        if self.task is not None:
            self.task.cancel()

    def lose(self) -> None:
        self.lease_lost = True
        self.held = False
        self.cancel(Interrupted())


class Jobs:
    """All jobs of a worker; at most `limit` at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.accepting = True
        self.interrupted: list[Job] = []
        self._jobs: dict[int, Job] = {}
        self._numbers = itertools.count()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._jobs)

    def all(self) -> list[Job]:
        return list(self._jobs.values())

    def add(self, delivery: Delivery) -> Job:
        job = Job(next(self._numbers), delivery)
        self._jobs[job.number] = job
        return job

    def remove(self, job: Job) -> None:
        del self._jobs[job.number]
        job.finished.set()
        self._changed.set()

    @property
    def room(self) -> int:
        return self.limit - len(self._jobs)

    async def wait_room(self, timeout: float) -> int:
        """How many more jobs there is room for; waits for the first place, at most `timeout` seconds."""
        with anyio.move_on_after(timeout):
            while self.room <= 0:
                self._changed.clear()
                await self._changed.wait()
        return self.room

    async def wait_idle(self) -> None:
        while self._jobs:
            self._changed.clear()
            await self._changed.wait()

    def take_interrupted(self) -> list[Job]:
        """Those whose messages go back, in the order they were claimed."""
        taken, self.interrupted = sorted(self.interrupted, key=lambda job: job.number), []
        return taken
