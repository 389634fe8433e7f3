"""What is wrong with a workflow, found before anything of it is sent. Pure.

Workers would find most of it, one step after the other, when it is too late to say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq.calling import options_of_signature
from aioretryq.errors import ConfigError
from aioretryq.linking import NO_BODY, TOO_DEEP
from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import CHAIN, CHORD, GROUP, MAX_DEPTH, TASK, Node, read_signatures
from aioretryq.workflows.shapes import spliced

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NO_COUNTING = (
    "A chord, or a group that something follows, needs a result backend to count its parts: set result_backend."
)
_LINKS = ("link", "link_error")


def check_depth(node: Node) -> None:
    """ConfigError where it is nested too deeply for whoever reads it, or walks through it here."""
    level = [node]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for each in level for inner in _inside(each) if inner.kind != TASK]
        if not level:
            return
    raise ConfigError(TOO_DEEP)


def _inside(node: Node) -> Iterable[Node]:
    """`Members` are looked at when they are made."""
    steps = () if isinstance(node.steps, Members) else node.steps
    return steps if node.body is None else (*steps, node.body)


class Checker:
    """Looks at a workflow; `counts`: whether the result backend counts parts of chords. All ConfigErrors."""

    def __init__(self, *, counts: bool) -> None:
        self._counts = counts
        self._ids: set[str] = set()
        self._told: dict[str, Node] = {}
        self._last: Mapping[str, Any] | None = None

    def check(self, node: Node, depth: int = 0) -> None:
        """`Members` are not looked at: that has to be done when they are made."""
        if depth > MAX_DEPTH:
            raise ConfigError(TOO_DEEP)
        if node.kind == CHORD and node.body is None:
            raise ConfigError(f"{NO_BODY} Nothing was sent.")
        if not self._counts and _has_barrier(node):
            raise ConfigError(NO_COUNTING)
        self._once(node.task_id, node)
        if node.kind == TASK:
            self._call(node)
        else:
            self._links(node.options)
        if node.body is not None:
            self.check(node.body, depth + 1)
        if not isinstance(node.steps, Members):
            for step in node.steps:
                self.check(step, depth + 1)

    def _call(self, node: Node) -> None:
        if node.options == self._last:  # nearly always, in large groups
            return
        options_of_signature(node.options, node.task)
        known = len(self._ids)
        self._links(node.options)
        self._last = node.options if known == len(self._ids) else None

    def _links(self, options: Mapping[str, Any]) -> None:
        for linked in read_signatures(options.get("link"), "link"):
            self.check(linked)
        for linked in read_signatures(options.get("link_error"), "link_error"):
            if linked.task_id is None or self._told.get(linked.task_id) != linked:
                self.check(linked)  # else it is told of several steps, one of which fails
            if linked.task_id is not None:
                self._told[linked.task_id] = linked

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
