"""Arguments that a task does not take, told before a workflow is sent: those of the calls that are sent first.

What comes later is given values that nobody knows yet; its worker tells then.
"""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aioretryq.errors import NotRegistered
from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import CHAIN, CHORD, GROUP, Node, merged_arguments
from aioretryq.workflows.check import check_depth

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aioretryq.app import TaskQueue
    from aioretryq.task import Task

    Args = tuple[Any, ...]
    Kwargs = Mapping[str, Any]

FEW = 100


def checked(node: Node, args: Args, kwargs: Kwargs, queue: TaskQueue) -> Node:
    """The same; TypeError where a known task cannot be called so. Of many members each is checked when it is read."""
    return _Check(queue).checked(node, args, kwargs)


class _Check:
    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue
        self._tasks: dict[str, Task[..., Any] | None] = {}

    def checked(self, node: Node, args: Args, kwargs: Kwargs) -> Node:
        if node.kind == CHAIN:
            return self._chain(node, args, kwargs)
        if node.kind not in (GROUP, CHORD):
            self._call(merged_arguments(node, args, kwargs))
            return node
        own = merged_arguments(node, args, kwargs)
        if isinstance(node.steps, Members) or len(node.steps) > FEW:
            members = node.steps if isinstance(node.steps, Members) else Members(node.steps)
            return replace(node, steps=members.map(lambda member: self._made(member, own)))
        steps = [self.checked(member, own.args, own.kwargs) for member in node.steps]
        return node if all(map(is_, steps, node.steps)) else replace(node, steps=tuple(steps))

    def _made(self, member: Node, group: Node) -> Node:
        check_depth(member)
        return self.checked(member, group.args, group.kwargs)

    def _chain(self, node: Node, args: Args, kwargs: Kwargs) -> Node:
        own, steps = merged_arguments(node, args, kwargs), tuple(node.steps)
        for number, step in enumerate(steps):
            if step.kind == GROUP and step.steps == ():
                continue  # it is left out
            found = self.checked(step, own.args, own.kwargs)
            return node if found is step else replace(node, steps=(*steps[:number], found, *steps[number + 1 :]))
        return node

    def _call(self, node: Node) -> None:
        if node.task not in self._tasks:
            try:
                self._tasks[node.task] = self._queue.find_task(node.task)
            except NotRegistered:  # it is another program's
                self._tasks[node.task] = None
        task = self._tasks[node.task]
        if task is not None:
            task.check_arguments(node.args, node.kwargs)
