"""The innermost call of a Celery task: the user's function, as Celery's tracer reaches it in a thread.

A plain function is simply called. A coroutine runs on the event loop, in a task of its own, while the thread that
traces it waits: so signals, hooks and whatever wraps the function happen before and after it, as they would for any
other task. In the coroutine Celery's stacks (`self.request`, `current_task`) are those of the waiting thread.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from concurrent.futures import Future
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from celery.exceptions import Reject, SoftTimeLimitExceeded

from aioretryq.celery_bridge.stacks import lend_stacks, lend_to_coroutine
from aioretryq.celery_bridge.throwing import Throwing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Body = Callable[..., Any]


class Abandoned(BaseException):
    """Goes through Celery's tracer, which stores nothing then: nobody waits for this run any more."""


class HardLimit(BaseException):
    """The same, of a coroutine that has used up its time."""


class Run:
    """One run of a task, shared by the event loop and the thread that traces it."""

    soft_limit: float | None = None
    hard_limit: float | None = None

    def __init__(self) -> None:
        self.abandoned = False

    def call(self, body: Body, args: Any, kwargs: Any) -> Any:
        try:
            return body(*args, **kwargs)
        finally:
            if self.abandoned:
                raise Abandoned


class CoroutineRun(Run):
    """A run whose body is a coroutine."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._inner: asyncio.Task[Any] | None = None
        self._cancelled_with: tuple[Any, ...] = ()
        self._soft_reached = False
        self._hard_reached = False
        self.retries: list[Any] = []
        """What `self.retry()` has asked for in the coroutine: the thread sends it, not to block the loop."""

    # -- in the thread

    def call(self, body: Body, args: Any, kwargs: Any) -> Any:
        coroutine = body(*args, **kwargs)
        if not inspect.iscoroutine(coroutine):
            return coroutine
        answer: Future[Any] = Future()
        context = copy_context()
        context.run(lend_to_coroutine)
        context.run(CURRENT.set, None)
        context.run(_coroutine.set, self)
        self._loop.call_soon_threadsafe(self._begin, coroutine, context, answer)
        try:
            return answer.result()
        finally:
            if not self.abandoned:
                self._send_retries()

    def _send_retries(self) -> None:
        for retry in self.retries:
            try:
                retry.apply_async()
            except Exception as error:  # what Task.retry() makes of it
                raise Reject(error, requeue=False) from error

    # -- on the event loop

    async def follow(self, traced: asyncio.Future[Any]) -> Any:
        """Wait for the thread; a cancellation is passed on to the coroutine, and takes effect when that has ended."""
        cancelled: asyncio.CancelledError | None = None
        while not traced.done():
            try:
                await asyncio.wait([traced])
            except asyncio.CancelledError as error:
                cancelled = error
                self._cancel(error.args)
        outcome = traced.result()
        if cancelled is not None and outcome is None:
            raise cancelled
        return outcome

    def _cancel(self, reason: tuple[Any, ...]) -> None:
        self.abandoned = True
        self._cancelled_with = reason
        if self._inner is not None:
            self._inner.cancel(*reason)

    def _begin(self, coroutine: Coroutine[Any, Any, Any], context: Context, answer: Future[Any]) -> None:
        if self.abandoned:
            coroutine.close()
            answer.set_exception(Abandoned())
            return
        body = coroutine if self.soft_limit is None else Throwing(coroutine, self._translated).run()
        inner = self._inner = self._loop.create_task(_guarded(body), context=context)
        timers = []
        if self.soft_limit is not None:
            timers.append(self._loop.call_later(self.soft_limit, self._soft))
        if self.hard_limit is not None:
            timers.append(self._loop.call_later(self.hard_limit, self._hard))
        inner.add_done_callback(lambda task: self._ended(task, timers, answer))
        inner.add_done_callback(lambda task: body.close())  # it may not even have begun

    def _soft(self) -> None:
        if self._inner is not None and not self.abandoned:
            self._soft_reached = True
            self._inner.cancel()

    def _hard(self) -> None:
        if self._inner is not None:
            self._hard_reached = True
            self._inner.cancel("TIME_LIMIT")

    def _translated(self, error: BaseException) -> BaseException:
        """What is thrown into the coroutine: at its soft limit Celery's exception, which it may catch."""
        if not self._soft_reached or not isinstance(error, asyncio.CancelledError):
            return error
        self._soft_reached = False
        if self.abandoned or self._hard_reached:
            return error
        if self._inner is not None:
            self._inner.uncancel()
        reached: BaseException = SoftTimeLimitExceeded(self.soft_limit)
        return reached

    def _ended(self, task: asyncio.Task[Any], timers: list[asyncio.TimerHandle], answer: Future[Any]) -> None:
        self._inner = None
        for timer in timers:
            timer.cancel()
        value, error = (None, _CANCELLED) if task.cancelled() else task.result()
        if error is None:
            answer.set_result(value)
        elif self.abandoned:
            answer.set_exception(Abandoned())
        elif self._hard_reached:
            answer.set_exception(HardLimit())
        elif isinstance(error, asyncio.CancelledError):  # for Celery it would be no failure at all
            answer.set_exception(RuntimeError("the task has cancelled itself, or awaited what was cancelled"))
        else:
            answer.set_exception(error)


_CANCELLED = asyncio.CancelledError()

_coroutine: ContextVar[CoroutineRun | None] = ContextVar("aioretryq_celery_coroutine", default=None)

CURRENT: ContextVar[tuple[Any, Run] | None] = ContextVar("aioretryq_celery_run", default=None)
"""In the thread that traces a run: the Celery task, and the run."""


async def _guarded(body: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    """SystemExit out of an asyncio task would end the event loop; it belongs to the task's tracer."""
    try:
        return await body, None
    except BaseException as error:
        if isinstance(error, GeneratorExit):
            raise
        return None, error


def is_coroutine(task: Any) -> bool:
    """Whether the function of a Celery task is `async def`, also inside of what Celery wraps around it."""
    body = getattr(task, "_orig_run", task.run)
    return inspect.iscoroutinefunction(inspect.unwrap(body))


def wrap_body(task: Any) -> None:
    """From now on a traced run of the task calls its function through its `Run`."""
    name = "_orig_run" if hasattr(task, "_orig_run") else "run"  # inside of what autoretry_for does
    body = getattr(task, name)

    @functools.wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        current = CURRENT.get()
        if current is None or current[0] is not task:  # a direct call
            return body(*args, **kwargs)
        return current[1].call(body, args, kwargs)

    setattr(task, name, run)
    if is_coroutine(task):
        lend_stacks(task)
        task.signature_from_request = functools.partial(_retry_signature, task.signature_from_request)


def _retry_signature(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    signature, run = make(*args, **kwargs), _coroutine.get()
    return signature if run is None else _SentLater(signature, run)


class _SentLater:
    """The message of a retry that is asked for in a coroutine."""

    def __init__(self, signature: Any, run: CoroutineRun) -> None:
        self._signature = signature
        self._run = run
        self.args, self.kwargs = signature.args, signature.kwargs

    def apply_async(self) -> None:
        self._run.retries.append(self._signature)
