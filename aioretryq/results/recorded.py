"""Whole workflows by an id: of their result, of a step that has begun, or of a group that was saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq.lazy import Lazy
from aioretryq.results.eager import EagerResult
from aioretryq.results.group import GroupResult, result_from_tuple
from aioretryq.results.many import ManyResults
from aioretryq.results.result import AsyncResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.workflows import record
    from aioretryq.workflows.record import Step

    Result = AsyncResult[Any] | GroupResult[Any]
else:
    record = Lazy("aioretryq.workflows.record")


async def workflow(app: TaskQueue, result_id: str) -> Result:
    """See `TaskQueue.workflow`."""
    found = results_of_steps(await steps_of(app, result_id), app)
    if found is not None:
        return found
    saved = await app.results.restore_group(result_id)
    if saved is not None:
        return result_from_tuple(saved, app)
    for task_id in reversed(await senders(app, result_id)):
        found = AsyncResult(task_id, app, parent=found)
    return AsyncResult(result_id, app, parent=found)


async def whole(result: Any) -> Any:
    """With what was recorded of its workflow, where nothing but its id is known here."""
    if not isinstance(result, AsyncResult) or isinstance(result, EagerResult) or result.parent is not None:
        return result
    return results_of_steps(await steps_of(result.app, result.id), result.app) or result


async def steps_of(app: TaskQueue, result_id: str) -> list[Step]:
    """What its sender has recorded of the workflow with this result, if anything."""
    return record.read_record(await app.results.restore_group(record.record_key(result_id))) or []


def results_of_steps(steps: Sequence[Step], app: TaskQueue) -> Result | None:
    """Of the last of them, the others its parents."""
    last: Result | None = None
    for step in steps:
        if step.ids is None and step.members is None:
            last = AsyncResult(step.id, app, parent=last)
            continue
        members: Sequence[Any]
        if step.ids is not None:
            members = ManyResults(app, step.ids)
        else:
            members = [found for each in step.members or () if (found := results_of_steps(each, app)) is not None]
        last = GroupResult(step.id, members, app, parent=last)
        last.is_sent = True
    return last


async def senders(app: TaskQueue, task_id: str) -> list[str]:
    """Who has sent it, who has sent that one, and so on, the nearest first, as far as each says that it has: the last
    part of a header, as Celery has it, does not tell of the body."""
    found: list[str] = []
    (document,) = await app.results.get_many([task_id])
    while (parent_id := document.parent_id) is not None and parent_id not in (task_id, *found):
        (sender,) = await app.results.get_many([parent_id])
        children = [result_from_tuple(entry, app) for entry in sender.children or ()]
        if not any(leaf == (found[-1] if found else task_id) for each in children for leaf in _ids(each)):
            break
        found.append(parent_id)
        document = sender
    return found


def _ids(result: Result) -> list[str]:
    """Of its tasks, and of those before them."""
    found, waiting = [], [result]
    while waiting:
        node = waiting.pop()
        if node.parent is not None:
            waiting.append(node.parent)
        if isinstance(node, GroupResult):
            waiting += node.results
        else:
            found.append(node.id)
    return found
