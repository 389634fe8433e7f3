"""Running workflows, and tasks with what is linked to them, in place: whoever would send them asks here first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq.context import current_run
from aioretryq.eager import no_sleep
from aioretryq.linking import with_signatures
from aioretryq.message import TaskMessage
from aioretryq.protocol.signature import TASK, Node
from aioretryq.results.result import EagerResult
from aioretryq.workflows.in_place_run import InPlace, Result, current
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
    single call of a task that is not there, and what `compile` raises.
    """
    if node.kind == TASK:
        queue.find_task(node.task)  # as where a task is called
    run = current_run.get()
    caller = None if run is None else run.request
    return await InPlace(queue, sleep, throw).run(node, (args, kwargs or {}, options or {}), caller)


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
    options = with_signatures(given, task.name)
    node = Node(TASK, task.name, tuple(args), dict(kwargs), dict(options))
    found = await apply(task.app, node, sleep=sleep, throw=throw)
    assert isinstance(found, EagerResult)
    return found


async def apply_replacement(
    task: Task[Any, Any], request: Request, outcome: Replaced, *, sleep: Sleep, throw: bool
) -> EagerResult[Any]:
    """What takes the place of a task that runs in place by itself."""
    run = InPlace(task.app, sleep, throw)
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
