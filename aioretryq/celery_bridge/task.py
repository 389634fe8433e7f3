"""A task of a Celery application, as our worker sees it."""

from __future__ import annotations

import asyncio
import logging
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.app.trace import build_tracer

from aioretryq import states
from aioretryq.celery_bridge.bodies import CoroutineRun, Run, is_coroutine, wrap_body
from aioretryq.celery_bridge.requests import Receipt, celery_request, context_of
from aioretryq.celery_bridge.tracing import trace
from aioretryq.foreign import ForeignTask
from aioretryq.outcome import GivenUp, Interrupted, Revoked

if TYPE_CHECKING:
    from collections.abc import Callable

    import anyio

    from aioretryq.celery_bridge.queue import CeleryQueue
    from aioretryq.context import Request
    from aioretryq.message import TaskMessage
    from aioretryq.outcome import Outcome
    from aioretryq.protocol.result import ResultDocument

logger = logging.getLogger("aioretryq.celery")

TAKEN = ("max_retries", "default_retry_delay", "ignore_result", "store_errors_even_if_ignored")


class CeleryTask(ForeignTask):
    """Options are those of the Celery task; `acks_late` is true unless its author or configuration says otherwise."""

    def __init__(self, task: Any, queue: CeleryQueue) -> None:
        options = {name: found for name in TAKEN if (found := getattr(task, name, None)) is not None}
        options |= {name: getattr(task, name) for name in ("dead_letter", "max_deliveries") if hasattr(task, name)}
        super().__init__(task.run, task.name, app=lambda: queue, options=options)
        self.is_coroutine = is_coroutine(task)
        self.track_started = False  # Celery's tracer stores it
        if task.acks_late is None:
            task.acks_late = queue.conf.task_acks_late
        self.acks_late = bool(task.acks_late)
        self.throws = tuple(task.throws or ())
        self.rate_limit = task.rate_limit
        limits = (task.app.conf.task_time_limit, task.app.conf.task_soft_time_limit)
        self.time_limit = task.time_limit if task.time_limit != limits[0] else None
        self.soft_time_limit = task.soft_time_limit if task.soft_time_limit != limits[1] else None
        self.celery_task = task
        self._queue = queue
        wrap_body(task)
        task.__trace__ = build_tracer(task.name, task, task.app.loader, queue.hostname, app=task.app)

    @property
    def limited(self) -> bool:
        return bool(self.celery_task.time_limit or self.celery_task.soft_time_limit)

    async def attempt(
        self,
        message: TaskMessage,
        request: Request,
        *,
        threads: anyio.CapacityLimiter,
        started: Callable[[], bool],
    ) -> Outcome:
        if self.is_coroutine:
            following = CoroutineRun()
            outcome: Outcome = await following.follow(self._tracing(following, message, request, started))
            return outcome
        run = Run()
        async with threads:
            try:
                return await self._tracing(run, message, request, started) or Interrupted()
            except asyncio.CancelledError:
                run.abandoned = True
                raise

    def _tracing(
        self, run: Run, message: TaskMessage, request: Request, started: Callable[[], bool]
    ) -> asyncio.Future[Outcome | None]:
        call = partial(trace, self.celery_task, self._queue.sender, run, message, request, started)
        return self._queue.in_thread(partial(copy_context().run, call))

    async def conclude(self, message: TaskMessage, request: Request, outcome: Outcome) -> bool:
        match outcome:
            case Revoked(reason):
                call = partial(self._revoked, message, request, reason)
            case Interrupted():  # acknowledged before it ran, and stopped
                call = partial(self._revoked, message, request, "terminated")
            case GivenUp(exc):
                call = partial(self._failed, message, request, exc)
            case _:
                return False
        try:
            await self._queue.in_thread(call)
        except Exception:
            logger.exception("Celery cannot store what became of task %s[%s]", message.task, message.id)
            return False
        return True

    def _revoked(self, message: TaskMessage, request: Request, reason: str) -> None:
        task = self.celery_task
        celerys = celery_request(task, message, request, Receipt())
        context = context_of(celerys)
        task.backend.mark_as_revoked(message.id, reason, request=context, store_result=celerys.store_errors)
        signals.task_revoked.send(
            sender=task,
            request=context,
            terminated=reason == "terminated",
            signum=None,
            expired=reason == "expired",
        )

    def _failed(self, message: TaskMessage, request: Request, error: BaseException) -> None:
        task = self.celery_task
        celerys = celery_request(task, message, request, Receipt())
        task.backend.mark_as_failure(
            message.id, error, request=context_of(celerys), store_result=celerys.store_errors
        )
        signals.task_failure.send(
            sender=task,
            task_id=message.id,
            exception=error,
            args=message.args,
            kwargs=message.kwargs,
            traceback=None,
            einfo=None,
        )

    def is_done(self, message: TaskMessage, found: ResultDocument) -> bool:
        # Celery sends links and chains before it stores a success; errbacks and a chord's part come after.
        return found.status == states.SUCCESS and message.chord is None
