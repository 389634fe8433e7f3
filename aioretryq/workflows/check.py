"""What is wrong with a workflow, found before anything of it is sent. Pure.

Workers would find most of it, one step after the other, when it is too late to say so.
"""

from __future__ import annotations

from typing import Any

from aioretryq.calling import options_of_signature
from aioretryq.errors import ConfigError
from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import CHAIN, CHORD, GROUP, MAX_DEPTH, TASK, Node, read_signatures
from aioretryq.workflows.shapes import spliced

NO_COUNTING = (
    "A chord, or a group that something follows, needs a result backend to count its parts: set result_backend."
)
_LINKS = ("link", "link_error")


class Checker:
    """Looks at a workflow; `counts`: whether the result backend counts parts of chords. All ConfigErrors."""

    def __init__(self, *, counts: bool) -> None:
        self._counts = counts
        self._ids: set[str] = set()
        self._last: dict[str, Any] | None = None

    def check(self, node: Node, depth: int = 0) -> None:
        """`Members` are not looked at: that has to be done when they are made."""
        if depth > MAX_DEPTH:
            raise ConfigError(f"A workflow is nested more than {MAX_DEPTH} levels deep: no worker would read it.")
        if not self._counts and _has_barrier(node):
            raise ConfigError(NO_COUNTING)
        if node.kind == TASK:
            self._call(node)
        else:
            self._once(node.task_id, node)
            self._links(node)
        if node.body is not None:
            self.check(node.body, depth + 1)
        if not isinstance(node.steps, Members):
            for step in node.steps:
                self.check(step, depth + 1)

    def _call(self, node: Node) -> None:
        self._once(node.task_id, node)
        if node.options == self._last:  # nearly always, in large groups
            return
        options_of_signature(node.options, node.task)
        self._links(node)
        self._last = node.options

    def _links(self, node: Node) -> None:
        for name in _LINKS:
            for linked in read_signatures(node.options.get(name), name):
                Checker(counts=self._counts).check(linked)

    def _once(self, task_id: str | None, node: Node) -> None:
        if task_id is None:
            return
        if task_id in self._ids:
            raise ConfigError(f"Two calls of a workflow have one task_id, {task_id!r}; the second is {node.task}.")
        self._ids.add(task_id)


def _has_barrier(node: Node) -> bool:
    """Whether parts of it have to be counted: a group that something follows becomes the header of a chord."""
    if node.kind == CHAIN:
        return any(step.kind == GROUP for step in spliced(node.steps)[:-1])
    return node.kind == CHORD
