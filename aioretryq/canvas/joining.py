"""What `|` makes of two signatures, by Celery's rules. Pure: both are left as they were.

With one difference. Celery takes chains and groups apart, and forgets the options that were set on them: here a chain
or chord that has options stays one step of the new chain, and a group one header.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aioretryq.protocol.signature import CHAIN, CHORD, GROUP, Node, chain_of, chord_of, listed, merged_arguments
from aioretryq.workflows.shapes import each_of, first_of, link, link_error, only_member

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Joining:
    """`errbacks_in_header`: whether an errback of a chord is one of its header, too, when a chain is taken apart."""

    def __init__(self, *, errbacks_in_header: bool = False) -> None:
        self._in_header = errbacks_in_header

    def joined(self, left: Node, right: Node) -> Node:
        """`left | right`."""
        if left.kind == GROUP:
            return left if _is_empty(right) else chord_of(left, right)
        if left.kind == CHAIN and not _has_options(left):
            return self._after_chain(left, right)
        only = _unrolled(right)
        if left.kind == CHORD and not _has_options(left) and (right.kind not in (GROUP, CHAIN) or only is not right):
            return self._into_body(left, only)
        first = self._steps(left) if left.kind == CHAIN else [left]
        return chain_of([*first, *(self._steps(right) if right.kind == CHAIN else [only])])

    def folded(self, nodes: Iterable[Node]) -> Node:
        """`chain(a, b, c)`: as `a | b | c`, where what stands first is a step of a chain already."""
        steps: list[Node] = []
        waiting = iter(nodes)
        for node in waiting:
            instead = self._merge(steps, node)
            if instead is not None:
                return reduce(self.joined, waiting, instead)
        return chain_of(steps)

    def _steps(self, chain: Node) -> list[Node]:
        """The steps of a chain, with what is linked to it: callbacks to the last one, errbacks to each. Of one with
        options: itself, as a step."""
        steps = list(chain.steps)
        for callback in listed(chain.options.get("link")):
            steps[-1:] = [link(step, callback) for step in steps[-1:]]
        for errback in listed(chain.options.get("link_error")):
            steps = [link_error(step, errback, self._in_header) for step in steps]
        if not _has_options(chain):
            return steps
        options = {name: value for name, value in chain.options.items() if name not in _LINKS}
        return [replace(chain, options=options, steps=tuple(steps))]

    def _after_chain(self, chain: Node, right: Node) -> Node:
        if right.kind == GROUP:
            return self._group_after_chain(chain, right)
        if right.kind == CHAIN:
            if _has_options(right):
                return chain_of([*self._steps(chain), *self._steps(right)])
            return reduce(self.joined, self._steps(right), chain)
        steps = list(chain.steps)
        last = steps[-1] if steps else None
        if last is not None and last.kind == GROUP:
            steps[-1] = chord_of(last, right)
            if len(steps) > 1 and _is_open(steps[-2]):
                steps[-2:] = [self._into_body(steps[-2], steps[-1])]
            return replace(chain, steps=tuple(steps))
        if last is not None and _is_open(last) and right.kind != CHORD:
            return replace(chain, steps=(*steps[:-1], self._into_body(last, right)))
        return chain_of([*self._steps(chain), right])

    def _group_after_chain(self, chain: Node, group: Node) -> Node:
        if _is_empty(group):
            return chain
        only = _unrolled(group)
        if only.kind != GROUP:
            return self._after_chain(chain, only)
        steps = self._steps(chain)
        if not steps:
            return only
        if _is_open(steps[-1]):
            return chain_of([*steps[:-1], self._into_body(steps[-1], only)])
        return chain_of([*steps, only])

    def _merge(self, steps: list[Node], other: Node) -> Node | None:
        """Put it behind the steps of a new chain. What it gives instead where it becomes no chain."""
        if _is_empty(other):
            return None
        if other.kind == GROUP:
            other = _unrolled(other)
            if other.kind != GROUP:
                return self._merge(steps, other)
            if not steps:
                return other
        elif other.kind == CHAIN:
            return self._merge_chain(steps, other)
        last = steps[-1] if steps else None
        if last is not None and last.kind == GROUP and other.kind != GROUP:
            steps[-1] = chord_of(last, other)
        elif last is not None and _is_open(last) and other.kind != CHORD:
            steps[-1] = self._into_body(last, other)
        else:
            steps.append(other)
        return None

    def _merge_chain(self, steps: list[Node], chain: Node) -> Node | None:
        if _has_options(chain):
            steps += self._steps(chain)
            return None
        waiting = iter(self._steps(chain))
        for step in waiting:
            instead = self._merge(steps, step)
            if instead is not None:
                return reduce(self.joined, waiting, instead)
        return None

    def _into_body(self, chord: Node, right: Node) -> Node:
        if chord.body is None:
            raise TypeError("A chord without a body cannot be followed by anything: chord(header, body).")
        return replace(chord, body=self.joined(chord.body, right))


_LINKS = frozenset({"link", "link_error"})


def _has_options(node: Node) -> bool:
    """Whether it says something of all that is in it, which what follows it must not be told."""
    return any(value is not None and name not in _LINKS for name, value in node.options.items())


def _is_open(node: Node) -> bool:
    """Whether what follows it goes into its body."""
    return node.kind == CHORD and not _has_options(node)


def made_immutable(node: Node, immutable: bool) -> Node:
    """Of a group, its members; of a chord, its header."""
    if node.kind in (GROUP, CHORD):
        return replace(node, steps=each_of(node.steps, lambda step: made_immutable(step, immutable)))
    return replace(node, immutable=immutable)


def with_arguments(node: Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Node:
    """With arguments before its own: of a chain those of its first step, of a group those of each member."""
    if not (args or kwargs) or node.immutable:
        return node
    if node.kind == GROUP:
        return replace(node, steps=each_of(node.steps, lambda step: with_arguments(step, args, kwargs)))
    if node.kind == CHAIN:
        steps = tuple(node.steps)
        return replace(node, steps=(*(with_arguments(step, args, kwargs) for step in steps[:1]), *steps[1:]))
    return merged_arguments(node, args, kwargs)


def _is_empty(node: Node) -> bool:
    return node.kind == GROUP and not first_of(node.steps, 1)


def _unrolled(node: Node) -> Node:
    """Of a group with one member that one, if nothing is said of the group; else the node itself."""
    only = None if _has_options(node) else only_member(node)
    return node if only is None else only
