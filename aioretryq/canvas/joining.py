"""What `|` makes of two signatures, by Celery's rules. Pure: both are left as they were."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import CHAIN, CHORD, GROUP, Node, merged_arguments
from aioretryq.workflows.shapes import link, link_error, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Steps = tuple[Node, ...] | Members[Node]


def chain_of(steps: Iterable[Node], options: dict[str, Any] | None = None) -> Node:
    return Node(CHAIN, "celery.chain", options=options or {}, subtask_type=CHAIN, steps=tuple(steps))


def chord_node(header: Steps, body: Node | None, options: dict[str, Any] | None = None) -> Node:
    """Its header is a list: the options of a group that becomes a header are lost, as in Celery."""
    return Node(
        CHORD, "celery.chord", options=options or {}, subtask_type=CHORD, steps=header, body=body, listed=True
    )


class Joining:
    """`errbacks_in_header`: whether an errback of a chord is one of its header, too, when a chain is taken apart."""

    def __init__(self, *, errbacks_in_header: bool = False) -> None:
        self._in_header = errbacks_in_header

    def joined(self, left: Node, right: Node) -> Node:
        """`left | right`."""
        only = _only_member(right)
        match left.kind:
            case "group":
                return left if _is_empty(right) else chord_node(left.steps, right)
            case "chain":
                return self._after_chain(left, right)
            case "chord" if right.kind not in (GROUP, CHAIN) or only is not right:
                return self._into_body(left, only)
        return chain_of([left, *self._unchained(right)] if right.kind == CHAIN else [left, only])

    def folded(self, nodes: Iterable[Node]) -> Node:
        """`chain(a, b, c)`: as `a | b | c`, where what stands first is a step of a chain already."""
        steps: list[Node] = []
        waiting = iter(nodes)
        for node in waiting:
            instead = self._merge(steps, node)
            if instead is not None:
                return reduce(self.joined, waiting, instead)
        return chain_of(steps)

    def _unchained(self, chain: Node) -> list[Node]:
        """The steps of a chain, with what is linked to it: callbacks to the last one, errbacks to each."""
        steps = list(chain.steps)
        for callback in listed(chain.options.get("link")):
            steps[-1:] = [link(step, callback) for step in steps[-1:]]
        for errback in listed(chain.options.get("link_error")):
            steps = [link_error(step, errback, self._in_header) for step in steps]
        return steps

    def _after_chain(self, chain: Node, right: Node) -> Node:
        if right.kind == GROUP:
            return self._group_after_chain(chain, right)
        if right.kind == CHAIN:
            return reduce(self.joined, self._unchained(right), chain)
        steps = list(chain.steps)
        last = steps[-1] if steps else None
        if last is not None and last.kind == GROUP:
            steps[-1] = chord_node(last.steps, right)
            if len(steps) > 1 and steps[-2].kind == CHORD:
                steps[-2:] = [self._into_body(steps[-2], steps[-1])]
            return replace(chain, steps=tuple(steps))
        if last is not None and last.kind == CHORD and right.kind != CHORD:
            return replace(chain, steps=(*steps[:-1], self._into_body(last, right)))
        return chain_of([*self._unchained(chain), right])

    def _group_after_chain(self, chain: Node, group: Node) -> Node:
        if _is_empty(group):
            return chain
        only = _only_member(group)
        if only.kind != GROUP:
            return self._after_chain(chain, only)
        steps = self._unchained(chain)
        if not steps:
            return only
        if steps[-1].kind == CHORD:
            return chain_of([*steps[:-1], self._into_body(steps[-1], only)])
        return chain_of([*steps, only])

    def _merge(self, steps: list[Node], other: Node) -> Node | None:
        """Put it behind the steps of a new chain. What it gives instead where it becomes no chain."""
        if _is_empty(other):
            return None
        if other.kind == GROUP:
            other = _only_member(other)
            if other.kind != GROUP:
                return self._merge(steps, other)
            if not steps:
                return other
        elif other.kind == CHAIN:
            waiting = iter(self._unchained(other))
            for step in waiting:
                instead = self._merge(steps, step)
                if instead is not None:
                    return reduce(self.joined, waiting, instead)
            return None
        last = steps[-1] if steps else None
        if last is not None and last.kind == GROUP and other.kind != GROUP:
            steps[-1] = chord_node(last.steps, other)
        elif last is not None and last.kind == CHORD and other.kind != CHORD:
            steps[-1] = self._into_body(last, other)
        else:
            steps.append(other)
        return None

    def _into_body(self, chord: Node, right: Node) -> Node:
        if chord.body is None:
            raise TypeError("A chord without a body cannot be followed by anything: chord(header, body).")
        return replace(chord, body=self.joined(chord.body, right))


def made_immutable(node: Node, immutable: bool) -> Node:
    """Of a group, its members; of a chord, its header."""
    if node.kind in (GROUP, CHORD):
        return replace(node, steps=each(node.steps, lambda step: made_immutable(step, immutable)))
    return replace(node, immutable=immutable)


def with_arguments(node: Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Node:
    """With arguments before its own: of a chain those of its first step, of a group those of each member."""
    if not (args or kwargs) or node.immutable:
        return node
    if node.kind == GROUP:
        return replace(node, steps=each(node.steps, lambda step: with_arguments(step, args, kwargs)))
    if node.kind == CHAIN:
        steps = tuple(node.steps)
        return replace(node, steps=(*(with_arguments(step, args, kwargs) for step in steps[:1]), *steps[1:]))
    return merged_arguments(node, args, kwargs)


def each(steps: Steps, change: Callable[[Node], Node]) -> Steps:
    """All of them changed: those of a generator when they are read."""
    return steps.map(change) if isinstance(steps, Members) else tuple(map(change, steps))


def _is_empty(node: Node) -> bool:
    return node.kind == GROUP and not _first(node.steps, 1)


def _only_member(node: Node) -> Node:
    """Of a group with one member that one, else the node itself."""
    first = _first(node.steps, 2) if node.kind == GROUP else []
    return first[0] if len(first) == 1 else node


def _first(steps: Steps, count: int) -> list[Node]:
    """Of a generator no more than these are made."""
    return steps.first(count) if isinstance(steps, Members) else list(steps[:count])
