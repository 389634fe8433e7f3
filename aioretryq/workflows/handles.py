"""From what was planned to what users hold: the results of a workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq.group_result import GroupResult
from aioretryq.result import AsyncResult

if TYPE_CHECKING:
    from aioretryq.app import TaskQueue
    from aioretryq.workflows.plan import Handle


def results_of(handle: Handle, app: TaskQueue) -> AsyncResult[Any] | GroupResult:
    """The result of the last thing in it; its parents are the results of what is before."""
    parent = None if handle.parent is None else results_of(handle.parent, app)
    if handle.members is None:
        return AsyncResult(handle.id, app, parent=parent)
    return GroupResult(handle.id, [results_of(member, app) for member in handle.members], app, parent=parent)
