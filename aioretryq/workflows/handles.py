"""From what was planned to what users hold: the results of a workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq.results.group import GroupResult
from aioretryq.results.many import ManyResults
from aioretryq.results.result import AsyncResult
from aioretryq.workflows.promises import ManyHandles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.workflows.promises import Handle

AT_ONCE = 1000


def results_of(handle: Handle, app: TaskQueue) -> AsyncResult[Any] | GroupResult[Any]:
    """The result of the last thing in it; its parents are the results of what is before. Of however many steps, and
    of a group of very many tasks as small as the handle is."""
    line = []
    node: Handle | None = handle
    while node is not None:
        line.append(node)
        node = node.parent
    found: AsyncResult[Any] | GroupResult[Any] | None = None
    for each in reversed(line):
        if each.members is None:
            found = AsyncResult(each.id, app, parent=found)
        else:
            found = GroupResult(each.id, _members(each.members, app), app, parent=found)
            found.is_sent = True
    assert found is not None
    return found


def _members(handles: Sequence[Handle], app: TaskQueue) -> Sequence[Any]:
    if not isinstance(handles, ManyHandles):
        return [results_of(member, app) for member in handles]
    if handles.plain:
        return ManyResults(app, handles.ids)
    many: ManyResults[Any] = ManyResults(app)
    plain: list[str] = []
    for handle in handles:
        if handle.parent is None and handle.members is None:
            plain.append(handle.id)
        else:
            many.add(plain)
            plain.clear()
            many.add_other(results_of(handle, app))
        if len(plain) == AT_ONCE:
            many.add(plain)
            plain.clear()
    many.add(plain)
    return many
