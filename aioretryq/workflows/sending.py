"""Sends workflows: what `plan` has planned, chords opened first."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aioretryq.backends.disabled import DisabledBackend
from aioretryq.calling import REPLY_TO, CallOptions, compose, options_of_signature
from aioretryq.context import current_run
from aioretryq.errors import ConfigError, NotRegistered
from aioretryq.exchanging import packed
from aioretryq.message import ChordOpening
from aioretryq.protocol.signature import Node, read_signature
from aioretryq.publishing import Terms
from aioretryq.workflows.handles import results_of
from aioretryq.workflows.plan import Compiler

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.group_result import GroupResult
    from aioretryq.message import TaskMessage
    from aioretryq.result import AsyncResult
    from aioretryq.workflows.plan import Handle, Plan

AT_ONCE = 1000
"""Messages on their way at the same time."""


async def start(
    queue: TaskQueue,
    node: Node,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> AsyncResult[Any] | GroupResult | None:
    """Send a workflow that was composed here: the result of the last thing in it; None if there is nothing in it."""
    handle = await send_signature(queue, node, args, kwargs, **(options or {}))
    return None if handle is None else results_of(handle, queue)


async def send_signature(
    queue: TaskQueue,
    signature: Mapping[str, Any] | Node,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Handle | None:
    """Send a call or a workflow; the result of the last thing in it, None if there is nothing in it.

    Raises ProtocolError for what is no signature, and all that `TaskQueue.send_task` raises; half of a workflow may
    have been sent then.
    """
    node = signature if isinstance(signature, Node) else read_signature(dict(signature))
    compiler = _compiler(queue)
    handle = compiler.apply(node, args, kwargs or {}, options)
    await send_plan(queue, compiler.plan)
    return handle


async def send_plan(queue: TaskQueue, plan: Plan) -> None:
    """Send what was planned; inside of a task it becomes its children, if the task keeps a trail."""
    messages = [(message, packed(message, queue.conf)) for message in plan.messages]
    results = queue.results
    if plan.openings and isinstance(results.backend, DisabledBackend):
        raise ConfigError("A chord needs a result backend to count its parts: set result_backend.")
    for opening in plan.openings:
        if opening.structure is not None:
            await results.save_group(opening.group_id, opening.structure)
    life = queue.conf.result_expires if queue.conf.result_chord_expires is None else queue.conf.result_chord_expires
    openings = [ChordOpening(each.group_id, each.size, life or None) for each in plan.openings]
    await results.ensure(lambda: results.backend.open_chords(openings))
    connections, terms = queue.connections, Terms.of(CallOptions(), queue.conf)
    for start in range(0, len(messages), AT_ONCE):
        batch = messages[start : start + AT_ONCE]
        await asyncio.gather(*(connections.publish(message, ready, terms) for message, ready in batch))
    run = current_run.get()
    if run is not None and run.task.trail:
        run.request.children += plan.children


def _compiler(queue: TaskQueue) -> Compiler:
    run, now = current_run.get(), time.time()
    caller = run.request if run is not None else None

    def made(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> TaskMessage:
        call = options_of_signature(options, name)
        try:
            task = queue.find_task(name)
        except NotRegistered:
            task = None
        return compose(name, (args, kwargs), call, task=task, settings=queue.conf, caller=caller, now=now)

    return Compiler(made, lambda: str(uuid4()), REPLY_TO)
