"""Sends workflows: what `plan` has planned, chords opened first."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aioretryq import sending
from aioretryq.backends.disabled import DisabledBackend
from aioretryq.calling import REPLY_TO, CallOptions, compose, options_of_signature
from aioretryq.context import current_run
from aioretryq.errors import BackendError, BackendUnavailable, NotRegistered
from aioretryq.ids import new_id
from aioretryq.lazy import Lazy
from aioretryq.linking import with_signatures
from aioretryq.plain_calls import uniform
from aioretryq.protocol.signature import TASK, Node, merged_arguments, merged_options, read_signature
from aioretryq.routing import check_routes
from aioretryq.workflows import dispatch
from aioretryq.workflows.compiling import OF_SENDER, Sender, compile
from aioretryq.workflows.handles import results_of
from aioretryq.workflows.plan import Compiler, routed
from aioretryq.workflows.record import names_of, record_key, record_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.message import TaskMessage
    from aioretryq.results.group import GroupResult
    from aioretryq.results.result import AsyncResult
    from aioretryq.task import Task
    from aioretryq.workflows import in_place
    from aioretryq.workflows.plan import Compose, Handle, Plan
else:
    in_place = Lazy("aioretryq.workflows.in_place")

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
        done = await in_place.taken(queue, node, (args, kwargs or {}, given))
        if done is not None:
            return done[0]
    if node.kind == TASK:
        return await _call(queue, node, (args, kwargs or {}), given)
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
    return compile(node, args, kwargs or {}, options or {}, sender=_sender(queue))


async def _call(
    queue: TaskQueue, node: Node, given: tuple[Sequence[Any], Mapping[str, Any]], options: Mapping[str, Any]
) -> AsyncResult[Any]:
    """A signature of one call: it is sent as `apply_async` sends one."""
    called = merged_arguments(node, tuple(given[0]), given[1])
    merged = routed(node, merged_options(node, options))
    task = _known(queue, node.task)
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
    compiler = _compiler(queue)
    handle = compiler.apply(node, args, kwargs or {}, options)
    await send_plan(queue, compiler.plan)
    return handle


async def send_plan(queue: TaskQueue, plan: Plan) -> None:
    """Send what was planned; inside of a task it becomes its children, if the task keeps a trail.

    See `TaskQueue.send`.
    """
    conf, backend = queue.conf, queue.results.backend
    if plan.result is None or not conf.result_save_workflows or isinstance(backend, DisabledBackend):
        await dispatch.send(queue, plan)
    elif plan.bulk is not None:
        await dispatch.send(queue, plan)
        await _keep_record(queue, plan, plan.result)
    else:
        keeping = asyncio.create_task(_keep_record(queue, plan, plan.result))
        try:
            await dispatch.send(queue, plan)
        finally:
            await keeping


async def _keep_record(queue: TaskQueue, plan: Plan, result: Handle) -> None:
    """For who wants to see the workflow, or to stop it, by the id of its result. That it was sent is what matters."""
    names = names_of(plan.messages)
    if plan.bulk is not None and plan.bulk.task is not None:
        names[plan.bulk.handle.id] = plan.bulk.task
    record = record_of(result, names)
    try:
        if record is not None:
            await queue.results.save_group(record_key(result.id), record)
    except (BackendError, BackendUnavailable) as error:
        logger.warning("Workflow %s cannot be shown: its steps could not be written down: %s", result.id, error)


def _sender(queue: TaskQueue) -> Sender:
    def alike(name: str) -> bool:
        return uniform(name, _known(queue, name), queue.conf)

    return Sender(
        _composing(queue),
        new_id,
        REPLY_TO,
        time.time(),
        counts=not isinstance(queue.results.backend, DisabledBackend),
        errbacks_in_header=queue.conf.task_allow_error_cb_on_chord_header,
        uniform=alike,
    )


def _known(queue: TaskQueue, name: str) -> Task[Any, Any] | None:
    try:
        return queue.find_task(name)
    except NotRegistered:
        return None


def _composing(queue: TaskQueue) -> Compose:
    run, now = current_run.get(), time.time()
    caller = run.request if run is not None else None

    def made(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> TaskMessage:
        call = options_of_signature(options, name)
        task = _known(queue, name)
        return compose(name, (args, kwargs), call, task=task, settings=queue.conf, caller=caller, now=now)

    return made


def _compiler(queue: TaskQueue) -> Compiler:
    in_header = queue.conf.task_allow_error_cb_on_chord_header
    return Compiler(_composing(queue), new_id, REPLY_TO, errbacks_in_header=in_header)
