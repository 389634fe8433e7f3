"""One run of a task: call the body, judge what came of it, call the hooks. Worker and eager mode share it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
import time
import traceback as traceback_module
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from aioretryq import outcome as outcomes
from aioretryq import states
from aioretryq.context import Request, Run, current_run
from aioretryq.errors import Ignore, MaxRetriesExceededError, Reject, Replaced, Retry, TimeLimitExceeded
from aioretryq.outcome import Failed, Ignored, Outcome, Rejected, RetryAsked, Succeeded
from aioretryq.protocol.saferepr import saferepr
from aioretryq.retry import Random
from aioretryq.soft_limit import soft_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from aioretryq.app import TaskQueue
    from aioretryq.task import Task

logger = logging.getLogger("aioretryq.task")
_random = Random()


@dataclass(frozen=True, slots=True)
class ExceptionInfo:
    """The exception of an attempt, for hooks; `str()` is the traceback (Celery: einfo)."""

    exception: BaseException
    traceback: str

    def __str__(self) -> str:
        return self.traceback


@contextmanager
def running(task: Task[Any, Any], request: Request, app: TaskQueue) -> Iterator[None]:
    """Inside, `current_task()` and `task.request` speak of this run, and shared tasks belong to `app`."""
    token = current_run.set(Run(task, request, app))
    try:
        yield
    finally:
        current_run.reset(token)


async def run_body(
    task: Task[Any, Any],
    request: Request,
    *,
    threads: anyio.CapacityLimiter | None = None,
    started: Callable[[], bool] | None = None,
    limits: tuple[float | None, float | None] | None = None,
    clock: Callable[[], float] = time.time,
    random: Random = _random,
) -> Outcome:
    """Run the task once. Whatever the body raises becomes an outcome; only cancellation passes through.

    Plain functions run in a thread, at most as many at once as `threads` admits; `started()` is called when
    the body is about to begin, and may say no to a call that nobody waits for any more. Cancelled while in a
    thread, the call is abandoned: the thread runs on. `limits` are the soft and the hard one, if the caller has
    looked them up.
    """
    try:
        if task.is_coroutine:
            if started is not None:
                started()
            if task.hooks:
                await _call_hook(task, "before_start", threads, request.id, request.args, request.kwargs)
            soft, hard = _limits(task, request) if limits is None else limits
            body = task.run(*request.args, **request.kwargs)
            # A scope costs microseconds: only tasks that have a limit pay for it.
            return Succeeded(await (body if soft is None and hard is None else _with_limits(body, soft, hard)))
        return Succeeded(await _in_thread(task, request, threads, started))
    except BaseException as error:
        try:
            if _has_to_pass(error):
                raise
            return judge(error, task, request, now=clock(), random=random)
        except Exception as senseless:  # such as Retry(when="soon"), or a class that nobody may ask what it is
            text = _format(senseless)
            senseless.__context__ = None  # whoever logs it would look at that
            return Failed(senseless, text)


def _has_to_pass(error: BaseException) -> bool:
    """Whether an exception is about this process or this run, rather than raised by the user's code."""
    if isinstance(error, asyncio.CancelledError):
        # Ours comes with a cancelled scope around us. One that leaked out of the code's own doings (it awaited
        # something that was cancelled) is just its failure.
        return anyio.current_effective_deadline() == -math.inf or _being_cancelled()
    return isinstance(error, KeyboardInterrupt | GeneratorExit)


def _being_cancelled() -> bool:
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


def _limits(task: Task[Any, Any], request: Request) -> tuple[float | None, float | None]:
    """Soft and hard limit of a run, in seconds."""
    soft, hard = request.soft_time_limit, request.time_limit
    return task.soft_time_limit if soft is None else soft, task.time_limit if hard is None else hard


async def _with_limits(body: Any, soft: float | None, limit: float | None) -> Any:
    if soft is not None and soft < (math.inf if limit is None else limit):
        body = soft_limit(body, soft)
    if limit is None:
        return await body
    with anyio.move_on_after(limit) as scope:
        return await body
    if scope.cancelled_caught:
        raise TimeLimitExceeded(limit)
    raise AssertionError("a block that was not cancelled has returned")


async def _in_thread(
    task: Task[Any, Any],
    request: Request,
    threads: anyio.CapacityLimiter | None,
    started: Callable[[], bool] | None,
) -> Any:
    def body() -> Any:
        if started is not None and not started():
            return None  # the call was abandoned while it waited for its thread
        return task.run(*request.args, **request.kwargs)

    await _call_hook(task, "before_start", threads, request.id, request.args, request.kwargs)
    return await anyio.to_thread.run_sync(body, limiter=threads, abandon_on_cancel=True)


def judge(error: BaseException, task: Task[Any, Any], request: Request, *, now: float, random: Random) -> Outcome:
    """What an exception of the body means for the task."""
    text = _format(error)
    if isinstance(error, Retry):
        return _judge_retry(error, task, request, text, now=now, random=random)
    if isinstance(error, Replaced):
        return outcomes.Replaced(error.node)
    if isinstance(error, Ignore):
        return Ignored()
    if isinstance(error, Reject):
        return Rejected(error, error.requeue)
    policy = task.retry_policy
    wanted = isinstance(error, task.autoretry_for) and not isinstance(error, task.dont_autoretry_for)
    if not wanted or (policy.max_retries is not None and request.retries >= policy.max_retries):
        return Failed(error, text)
    options = {k: v for k, v in task.retry_kwargs.items() if k not in ("max_retries", "countdown")}
    return RetryAsked(error, now + policy.next_delay(request.retries, random), text, options=options)


def _judge_retry(
    retry: Retry, task: Task[Any, Any], request: Request, text: str, *, now: float, random: Random
) -> Outcome:
    policy = task.retry_policy
    limit = retry.max_retries if retry.max_retries is not None else policy.max_retries
    if limit is not None and request.retries >= limit:
        used_up = MaxRetriesExceededError(f"{task.name}[{request.id}] has used its {limit} retries.")
        given_up = used_up if retry.exc is None else retry.exc
        return Failed(given_up, text)
    if isinstance(retry.when, datetime):
        # A naive eta means UTC, as in messages.
        aware = retry.when if retry.when.tzinfo else retry.when.replace(tzinfo=UTC)
        due = aware.timestamp()
    else:
        due = now + (retry.when if retry.when is not None else policy.next_delay(request.retries, random))
    return RetryAsked(retry.exc or retry, due, text, retry.new_args, retry.new_kwargs, retry.options)


def _format(error: BaseException) -> str:
    try:
        # The first frames are ours; users look for theirs.
        frames = error.__traceback__
        while frames is not None and frames.tb_next is not None and _is_plumbing(frames):
            frames = frames.tb_next
        return "".join(traceback_module.format_exception(type(error), error, frames))
    except Exception as broken:  # a class of the user's may do anything when it is looked at
        return f"{saferepr(error, 200)} cannot be shown: {type(broken).__name__}\n"


def _is_plumbing(frames: TracebackType) -> bool:
    module = str(frames.tb_frame.f_globals.get("__name__"))
    return module.partition(".")[0] in ("aioretryq", "anyio")


# -- hooks


async def run_hooks(
    task: Task[Any, Any], request: Request, outcome: Outcome, threads: anyio.CapacityLimiter | None = None
) -> None:
    """Tell the task's hooks what came of an attempt."""
    if not task.hooks:
        return
    call = functools.partial(_call_hook, task)
    who = (request.id, request.args, request.kwargs)
    match outcome:
        case Succeeded(value):
            await call("on_success", threads, value, *who)
            await call("after_return", threads, states.SUCCESS, value, *who, None)
        case RetryAsked(exc, _, text):
            info = ExceptionInfo(exc, text or "")
            await call("on_retry", threads, exc, *who, info)
            await call("after_return", threads, states.RETRY, exc, *who, info)
        case Failed(exc, text):
            info = ExceptionInfo(exc, text or "")
            await call("on_failure", threads, exc, *who, info)
            await call("after_return", threads, states.FAILURE, exc, *who, info)
        case _:
            pass


async def _call_hook(task: Task[Any, Any], hook: str, threads: anyio.CapacityLimiter | None, *args: Any) -> None:
    """Hooks of plain functions run in a thread as their body does; those of coroutines run on the loop."""
    if hook not in task.hooks:
        return
    function = getattr(task, hook)
    try:
        if task.is_coroutine or inspect.iscoroutinefunction(function):
            returned = function(*args)
        else:
            returned = await anyio.to_thread.run_sync(function, *args, limiter=threads)
        if inspect.isawaitable(returned):
            await returned
    except BaseException as error:
        if _has_to_pass(error):
            raise
        logger.exception("%s of %s raised; the task itself is not affected", hook, task.name)
