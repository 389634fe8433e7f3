"""Running workflows, and tasks with what is linked to them, in place: whoever would send them asks here first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq.calling import CallOptions
from aioretryq.context import current_run
from aioretryq.eager import no_sleep
from aioretryq.linking import with_signatures
from aioretryq.message import TaskMessage
from aioretryq.protocol.signature import TASK, Node
from aioretryq.results.eager import EagerResult
from aioretryq.workflows.eager_run import EagerRun, Result, current
from aioretryq.workflows.promises import Handle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.context import Request
    from aioretryq.eager import Sleep
    from aioretryq.outcome import Replaced
    from aioretryq.task import Task

__all__ = ["Result", "apply", "apply_replacement", "apply_task", "taken"]


async def apply(
    queue: TaskQueue,
    node: Node,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    sleep: Sleep = no_sleep,
    throw: bool = False,
) -> Result | None:
    """Run it to its end: the result of the last thing in it, with its parents; None if there is nothing in it.

    With `throw` the first exception of a task is raised at once, and nothing else runs. Raises NotRegistered for a
    single call of a task that is not there, ConfigError for options that no call has, and what `compile` raises.
    """
    if node.kind == TASK:
        queue.find_task(node.task)  # as where a task is called
    return await _run(EagerRun(queue, sleep, throw), node, (args, kwargs or {}, options or {}))


async def apply_task(
    task: Task[Any, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    sleep: Sleep = no_sleep,
    throw: bool = False,
) -> EagerResult[Any]:
    """A task with what is linked to it."""
    given = {name: value for name, value in options.items() if name not in ("sleep", "throw", "retries")}
    node = Node(TASK, task.name, tuple(args), dict(kwargs))
    retries = options.get("retries") or 0
    found = await _run(EagerRun(task.app, sleep, throw, retries), node, ((), {}, given))
    assert isinstance(found, EagerResult)
    return found


async def _run(
    run: EagerRun, node: Node, call: tuple[Sequence[Any], Mapping[str, Any], Mapping[str, Any]]
) -> Result | None:
    args, kwargs, options = call
    given = with_signatures(options, node.task)
    CallOptions.of(given, node.task)
    caller = current_run.get()
    return await run.run(node, (args, kwargs, given), None if caller is None else caller.request)


async def apply_replacement(
    task: Task[Any, Any], request: Request, outcome: Replaced, *, sleep: Sleep, throw: bool
) -> EagerResult[Any]:
    """What takes the place of a task that runs in place by itself."""
    run = EagerRun(task.app, sleep, throw)
    task_id = request.id or ""
    message = TaskMessage(id=task_id, task=task.name, replaced_task_nesting=request.replaced_task_nesting)
    run.next(await run.follow(message, request, outcome))
    await run.finish()
    found = run.result(Handle(task_id))
    assert isinstance(found, EagerResult)
    return found


async def taken(
    queue: TaskQueue, node: Node, call: tuple[Sequence[Any], Mapping[str, Any], Mapping[str, Any]]
) -> tuple[Result | None] | None:
    """(Its result), where what would be sent is to run here: with `task_always_eager`, and what a task that runs here
    has added to its chord. None: it is to be sent."""
    within, run = current(), current_run.get()
    if within is not None and run is not None and within.has_part(node):
        return (await within.at_once(node, run.request),)
    if queue.conf.task_always_eager:
        return (await apply(queue, node, *call, throw=queue.conf.task_eager_propagates),)
    return None
