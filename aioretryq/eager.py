"""Running a task in place, without a broker: `task.apply()` and `task_always_eager`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio.lowlevel

from aioretryq import states
from aioretryq.context import Request, current_run
from aioretryq.errors import EncodeError, UnknownSettingError
from aioretryq.execution import run_body, run_hooks, running
from aioretryq.lazy import Lazy
from aioretryq.outcome import Failed, Outcome, Rejected, Replaced, RetryAsked, Succeeded
from aioretryq.protocol.content import content_type_of, decode_content, encode_content
from aioretryq.results.eager import EagerResult

if TYPE_CHECKING:
    from aioretryq.task import Task
    from aioretryq.workflows import eager as eager_workflows
else:
    eager_workflows = Lazy("aioretryq.workflows.eager")

LINKS = ("link", "link_error", "chain")
KNOWN = {"sleep", "throw", "task_id", "retries", "headers", *LINKS}

Sleep = Callable[[float], Awaitable[None]]


async def no_sleep(delay: float) -> None:
    """Waits of an eager run are skipped, but others get their turn."""
    await anyio.lowlevel.checkpoint()


async def apply(
    task: Task[Any, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
) -> EagerResult[Any]:
    """Run through all retries, with what is linked to it. Arguments pass the serializer, as on their way."""
    if unknown := sorted(set(options) - KNOWN):
        raise UnknownSettingError(f"{task.name}.apply() has no option {unknown[0]!r}; it takes {sorted(KNOWN)}.")
    sleep: Sleep = options.get("sleep") or no_sleep
    throw = options.get("throw", task.app.conf.task_eager_propagates)
    if any(options.get(name) for name in LINKS):
        return await eager_workflows.apply_task(task, args, kwargs, options, sleep=sleep, throw=throw)
    request = _request(task, list(args), dict(kwargs), options)
    outcome = await run_through(task, request, sleep=sleep)
    if isinstance(outcome, Replaced):
        return await eager_workflows.apply_replacement(task, request, outcome, sleep=sleep, throw=throw)
    if isinstance(outcome, Failed) and throw:
        raise outcome.exc
    return result_of(request, outcome)


async def run_through(task: Task[Any, Any], request: Request, *, sleep: Sleep) -> Outcome:
    """Through all its retries; the request is that of the last one."""
    conf = task.app.conf
    while True:
        sent = [request.args, request.kwargs]
        request.args, request.kwargs = _travelled(sent, task.serializer or conf.task_serializer)
        with running(task, request, task.app):
            outcome = _serialised(await run_body(task, request), conf.result_serializer)
            await run_hooks(task, request, outcome)
        if not isinstance(outcome, RetryAsked):
            return outcome
        await sleep(max(0.0, outcome.due - time.time()))
        request.retries += 1
        request.args = list(outcome.args) if outcome.args is not None else request.args
        request.kwargs = outcome.kwargs if outcome.kwargs is not None else request.kwargs


def result_of(request: Request, outcome: Outcome) -> EagerResult[Any]:
    """What has become of it, for callers."""
    match outcome:
        case Succeeded(value):
            return EagerResult(request.id, states.SUCCESS, value, None, request)
        case Failed(exc, text):
            return EagerResult(request.id, states.FAILURE, exc, text, request)
        case Rejected(exc):
            return EagerResult(request.id, states.FAILURE, exc, None, request)
        case _:
            return EagerResult(request.id, states.PENDING, None, None, request)


def _travelled(value: Any, serializer: str) -> Any:
    """As it would arrive. Nobody can have written it but ourselves, so signing is left out, and pickles are read."""
    content_type = content_type_of("json" if serializer == "auth" else serializer)
    data, encoding = encode_content(value, content_type)
    return decode_content(data, content_type, encoding, [content_type])


def _serialised(outcome: Outcome, serializer: str) -> Outcome:
    """The value as a caller would get it back from a backend; one that cannot be stored is a failure."""
    if not isinstance(outcome, Succeeded):
        return outcome
    try:
        return Succeeded(_travelled(outcome.value, serializer))
    except EncodeError as error:
        return Failed(error)


def _request(task: Task[Any, Any], args: list[Any], kwargs: dict[str, Any], options: Mapping[str, Any]) -> Request:
    parent = current_run.get()
    task_id = options.get("task_id") or str(uuid4())
    return Request(
        id=task_id,
        task=task.name,
        args=args,
        kwargs=kwargs,
        retries=options.get("retries", 0),
        headers=dict(options.get("headers") or {}),
        is_eager=True,
        root_id=parent.request.root_id if parent else task_id,
        parent_id=parent.request.id if parent else None,
    )
