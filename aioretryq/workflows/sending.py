"""Sends workflows: what `plan` has planned, chords opened first."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aioretryq import sending
from aioretryq.backends.disabled import DisabledBackend
from aioretryq.calling import CallOptions, options_of_signature
from aioretryq.context import current_run
from aioretryq.errors import BackendError, BackendUnavailable
from aioretryq.lazy import Lazy
from aioretryq.linking import with_signatures
from aioretryq.protocol.signature import TASK, Node, merged_arguments, merged_options, read_signature
from aioretryq.routing import check_routes
from aioretryq.workflows import dispatch
from aioretryq.workflows.compile import OF_SENDER, compile, is_heavy, streamed
from aioretryq.workflows.compiler import Compiler, routed
from aioretryq.workflows.handles import results_of
from aioretryq.workflows.record import record_key, record_of
from aioretryq.workflows.sender import known, sender_of
from aioretryq.workflows.spread import spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.results.group import GroupResult
    from aioretryq.results.result import AsyncResult
    from aioretryq.workflows import eager
    from aioretryq.workflows.plan import Plan
    from aioretryq.workflows.promises import Handle
    from aioretryq.workflows.sender import Sender
else:
    eager = Lazy("aioretryq.workflows.eager")

logger = logging.getLogger("aioretryq")


async def start(
    queue: TaskQueue,
    node: Node,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> AsyncResult[Any] | GroupResult[Any] | None:
    """Send what was composed here: the result of the last thing in it; None if there is nothing in it.

    Raises what `compile` and `send_plan` raise.
    """
    given = with_signatures(options or {}, node.task)
    run = current_run.get()
    if queue.conf.task_always_eager or (run is not None and run.request.is_eager):
        done = await eager.taken(queue, node, (args, kwargs or {}, given))
        if done is not None:
            return done[0]
    if node.kind == TASK:
        return await _call(queue, node, (args, kwargs or {}), given)
    node = streamed(node)
    if is_heavy(node):
        plan = await asyncio.to_thread(plan_of, queue, node, args, kwargs, given)
    else:
        plan = plan_of(queue, node, args, kwargs, given)
    await send_plan(queue, plan)
    return result_of(queue, plan)


def result_of(queue: TaskQueue, plan: Plan) -> AsyncResult[Any] | GroupResult[Any] | None:
    """What its sender waits for."""
    return None if plan.result is None else results_of(plan.result, queue)


def plan_of(
    queue: TaskQueue,
    node: Node,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """What `start` sends. Raises ConfigError for options that no call has, and what `compile` raises."""
    CallOptions.of(options or {}, node.task)
    check_routes(queue.conf.task_routes)
    sender = replace(_sender(queue), counts=not isinstance(queue.results.backend, DisabledBackend))
    return compile(node, args, kwargs or {}, options or {}, sender=sender)


async def _call(
    queue: TaskQueue, node: Node, given: tuple[Sequence[Any], Mapping[str, Any]], options: Mapping[str, Any]
) -> AsyncResult[Any]:
    """A signature of one call: it is sent as `apply_async` sends one."""
    node, options = spread(node, options, time.time())
    called = merged_arguments(node, tuple(given[0]), given[1])
    merged = routed(node, merged_options(node, options))
    task = known(queue, node.task)
    if not merged:
        return await sending.send(queue, node.task, called.args, called.kwargs, task=task, options={})
    asked = CallOptions.of(options, node.task)
    call = replace(options_of_signature(merged, node.task), **{name: getattr(asked, name) for name in OF_SENDER})
    return await sending.send_call(queue, node.task, (called.args, called.kwargs), task, call)


async def send_signature(
    queue: TaskQueue,
    signature: Mapping[str, Any] | Node,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Handle | None:
    """Send a call or a workflow as Celery would; the result of the last thing in it, None if there is nothing in it.

    Raises ProtocolError for what is no signature, and all that `TaskQueue.send_task` raises; half of a workflow may
    have been sent then.
    """
    node = signature if isinstance(signature, Node) else read_signature(dict(signature))
    compiler = Compiler(_sender(queue))
    handle = compiler.apply(node, args, kwargs or {}, options)
    await send_plan(queue, compiler.plan)
    return handle


async def send_plan(queue: TaskQueue, plan: Plan) -> None:
    """Send what was planned; inside of a task it becomes its children, if the task keeps a trail.

    See `TaskQueue.send`.
    """
    await dispatch.send(queue, plan)
    if plan.result is not None and queue.conf.result_save_workflows:
        await _keep_record(queue, plan.result)


async def _keep_record(queue: TaskQueue, result: Handle) -> None:
    """For who wants to see the workflow, or to stop it, by the id of its result. That it was sent is what matters."""
    record = None if isinstance(queue.results.backend, DisabledBackend) else record_of(result)
    try:
        if record is not None:
            await queue.results.save_group(record_key(result.id), record)
    except (BackendError, BackendUnavailable) as error:
        logger.warning("Workflow %s cannot be shown: its steps could not be written down: %s", result.id, error)


def _sender(queue: TaskQueue) -> Sender:
    run = current_run.get()
    return sender_of(queue, None if run is None else run.request)
