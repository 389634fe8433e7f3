"""One call, from its arguments to the message that the broker has: `delay`, `apply_async` and `send_task`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aioretryq.calling import CallOptions, compose
from aioretryq.context import current_run
from aioretryq.exchanging import packed
from aioretryq.lazy import Lazy
from aioretryq.linking import with_signatures
from aioretryq.publishing import Terms
from aioretryq.results.result import AsyncResult
from aioretryq.routing import check_routes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aioretryq import eager
    from aioretryq.app import TaskQueue
    from aioretryq.context import Run
    from aioretryq.task import Task
else:
    eager = Lazy("aioretryq.eager")


async def send(
    queue: TaskQueue,
    name: str,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    *,
    task: Task[Any, Any] | None,
    options: Mapping[str, Any],
) -> AsyncResult[Any]:
    """What `send_task` and `apply_async` share."""
    if options or queue.conf.task_always_eager:
        return await _send_with_options(queue, name, (args or (), kwargs or {}), task, options)
    connections, run = queue.connections, current_run.get()
    inherits = run is not None and queue.conf.task_inherit_parent_priority
    calls = None if inherits else connections.calls.of(name, task)
    if calls is None:
        return await _send_with_options(queue, name, (args or (), kwargs or {}), task, options)
    task_id, message = calls.pack(args or (), kwargs or {}, None if run is None else run.request)
    await connections.publisher.publish(message, f"Task {name}[{task_id}]", calls.terms)
    return _result(queue, task_id, calls.ignored, run)


async def _send_with_options(
    queue: TaskQueue,
    name: str,
    arguments: tuple[Sequence[Any], Mapping[str, Any]],
    task: Task[Any, Any] | None,
    options: Mapping[str, Any],
) -> AsyncResult[Any]:
    call = CallOptions.of(with_signatures(options, name), name)
    if queue.conf.task_always_eager:
        eagerly = {each: getattr(call, each) for each in ("task_id", "headers", *eager.LINKS)}
        return await eager.apply(task or queue.find_task(name), *arguments, eagerly)
    return await send_call(queue, name, arguments, task, call)


async def send_call(
    queue: TaskQueue,
    name: str,
    arguments: tuple[Sequence[Any], Mapping[str, Any]],
    task: Task[Any, Any] | None,
    call: CallOptions,
) -> AsyncResult[Any]:
    """One call with options that have been read."""
    conf = queue.conf
    check_routes(conf.task_routes)
    run = current_run.get()
    caller = run.request if run is not None else None
    message = compose(name, arguments, call, task=task, settings=conf, caller=caller, now=time.time())
    await queue.connections.publish(message, packed(message, conf), Terms.of(call, conf))
    return _result(queue, message.id, bool(message.ignore_result), run)


def _result(queue: TaskQueue, task_id: str, ignored: bool, run: Run | None) -> AsyncResult[Any]:
    result: AsyncResult[Any] = AsyncResult(task_id, queue)
    result.ignored = ignored
    result.just_sent = True
    if run is not None and run.task.trail:
        run.request.children.append(result.as_tuple())
    return result
