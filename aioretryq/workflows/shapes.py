"""Workflows rewritten into the forms that are sent, and what is left of them when they fail. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import CHAIN, CHORD, GROUP, TASK, Node, linked, listed, merged_arguments, steps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Steps = tuple[Node, ...] | Members[Node]

OF_CHAIN = ("task_id", "group_id", "group_index", "chord", "link", "link_error", "root_id", "parent_id")
"""Options of a chain that are not those of its first step."""


def unrolled(members: Iterable[Node]) -> Iterable[Node]:
    """The members of a group and of the groups in it; what is empty is none."""
    for member in members:
        if member.kind == GROUP:
            yield from unrolled(member.steps)
        elif not is_empty_chain(member):
            yield member


def is_empty_chain(node: Node) -> bool:
    """Whether there is nothing to call in it, and nothing to wait for either."""
    return node.kind == CHAIN and all(map(is_empty_chain, node.steps))


def spliced(steps: Iterable[Node], errbacks_in_header: bool = False) -> list[Node]:
    """The steps of a chain and of the chains in it.

    Groups of one are their member; empty ones are left out, unless there is nothing else.
    """
    flat: list[Node] = []
    empty: list[Node] = []
    for step in steps:
        found = _ungrouped(step)
        if found.kind == CHAIN:
            flat += spliced(_with_first_arguments(found), errbacks_in_header)
        elif found.kind == GROUP and not any(True for _ in unrolled(found.steps)):
            empty.append(found)
        elif found.kind == CHORD and found.body is not None and _led_by_task(found.body):
            flat += spliced(_unrolled_body(found, errbacks_in_header), errbacks_in_header)
        else:
            flat.append(found)
    return flat or empty[-1:]


def first_of(steps: Steps, count: int) -> list[Node]:
    """Of a generator no more than these are made."""
    return steps.first(count) if isinstance(steps, Members) else list(steps[:count])


def only_member(node: Node) -> Node | None:
    """Of a group with one member that one."""
    few = first_of(node.steps, 2) if node.kind == GROUP else []
    return few[0] if len(few) == 1 else None


def _ungrouped(node: Node) -> Node:
    while (only := only_member(node)) is not None:
        node = merged_arguments(only, node.args, {})
    return node


def _with_first_arguments(chain: Node) -> tuple[Node, ...]:
    """The steps of a chain; its own arguments are for the first."""
    steps = steps_of(chain)
    if not chain.args or not steps:
        return steps
    return (merged_arguments(steps[0], chain.args, {}), *steps[1:])


def _led_by_task(body: Node) -> bool:
    return body.kind == CHAIN and bool(body.steps) and steps_of(body)[0].kind != GROUP


def _unrolled_body(chord: Node, errbacks_in_header: bool) -> list[Node]:
    """A chord whose body is a chain, as a chord with the first step as its body, and the rest.

    Every part of the header carries the body: the rest need not be copied so often.
    """
    assert chord.body is not None
    chain, steps = chord.body, list(_with_first_arguments(chord.body))
    for callback in listed(chain.options.get("link")):
        steps[-1] = link(steps[-1], callback)
    for errback in listed(chain.options.get("link_error")):
        steps = [link_error(step, errback, errbacks_in_header) for step in steps]
    first = steps[0].with_options(**{n: value for n, value in chain.options.items() if n not in OF_CHAIN})
    return [replace(chord, body=first), *steps[1:]]


def link(node: Node, callback: dict[str, Any]) -> Node:
    """With a callback for its result: of a group's first member (which then is not given the value), as in Celery."""
    if node.kind == CHORD and node.body is not None:
        return replace(node, body=link(node.body, callback))
    if node.kind == GROUP and (members := steps_of(node)):
        first = link(members[0], {**callback, "immutable": True})
        return replace(node, steps=(first, *members[1:]))
    return linked(node, "link", callback)


def link_error(node: Node, errback: dict[str, Any], in_header: bool = False) -> Node:
    """With an errback for its failure: of a chord in its body, and `in_header` of each part."""
    if node.kind == GROUP:
        return replace(node, steps=each_of(node.steps, lambda member: link_error(member, errback, in_header)))
    if node.kind == CHORD and node.body is not None:
        header = each_of(node.steps, lambda member: _in_header(member, errback, in_header))
        return replace(node, steps=header, body=link_error(node.body, errback, in_header))
    return linked(node, "link_error", errback)


def _in_header(part: Node, errback: dict[str, Any], in_header: bool) -> Node:
    """Celery means to make it immutable there, and writes an option that nobody reads: it is given what all are."""
    return link_error(part, errback, in_header) if in_header or part.kind == CHORD else part


def each_of(steps: Steps, change: Callable[[Node], Node]) -> Steps:
    """All of them changed: those of a generator when they are read."""
    return steps.map(change) if isinstance(steps, Members) else tuple(map(change, steps))


def ungrouped(node: Node) -> Node:
    """As if it had not been given a group yet: what it is, or what it ends in, is to be a part of another one."""
    of_group = ("group_id", "group_index", "chord")
    options = {name: value for name, value in node.options.items() if name not in of_group}
    if node.kind == CHAIN and node.steps:
        *before, last = steps_of(node)
        return replace(node, options=options, steps=(*before, ungrouped(last)))
    if node.kind == GROUP:
        return replace(node, options=options, steps=tuple(map(ungrouped, node.steps)))
    body = None if node.body is None else ungrouped(node.body)
    return replace(node, options=options, body=body)


def body_link_error(body: Node, errback: dict[str, Any]) -> Node:
    """An errback of a chord: a group as its body has its own, or each of its members gets it."""
    if body.kind == GROUP and body.options.get("link_error") is None:
        return link_error(body, errback)
    return linked(body, "link_error", errback)


def _once(signatures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [found for n, found in enumerate(signatures) if found not in signatures[:n]]


def failing(node: Node) -> list[Node]:
    """The calls in a workflow that will never be made, with where they are in it: their waiters have to be told.

    Only those that were given an id; the parts of a chord's header are no parts of it any more (no `chord`), for its
    body is among them.
    """
    return [call for call in _failing(node, {}) if call.task_id is not None]


def errbacks_of(node: Node) -> list[tuple[Node, list[dict[str, Any]]]]:
    """Whom to tell of a body that cannot be called: (the call that counts as failed, its errbacks)."""
    own = listed(node.options.get("link_error"))
    if node.kind == GROUP:
        found = [pair for member in unrolled(node.steps) for pair in errbacks_of(member)]
        return [(call, _once([*errbacks, *own])) for call, errbacks in found]
    if node.kind == CHORD and node.body is not None:
        return [(call, _once([*own, *errbacks])) for call, errbacks in errbacks_of(node.body)]
    if node.kind == CHAIN and node.steps:
        # Of its first step those that are only its own: the chain's are linked to every step.
        first = steps_of(node)[0]
        led = [] if first.kind == GROUP else errbacks_of(first)
        return [(node, own), *((call, [each for each in theirs if each not in own]) for call, theirs in led)]
    return [(node, own)]


def _failing(node: Node, inherited: dict[str, Any]) -> list[Node]:
    """`inherited`: the chord that the last call in the node is a part of, unless it says so itself."""
    place: dict[str, Any] = {
        name: node.options[name] for name in ("chord", "group_id", "group_index") if name in node.options
    }
    place = {**inherited, **place} if "chord" in place or "chord" in inherited else {}
    if node.kind == TASK:
        return [node.with_options(**place)]
    if node.kind == GROUP:
        return [call for member in node.steps for call in _failing(member, place)]
    if node.kind == CHAIN:
        steps = steps_of(node)
        last = len(steps) - 1
        return [call for n, step in enumerate(steps) for call in _failing(step, place if n == last else {})]
    assert node.body is not None
    header = [call for member in node.steps for call in _failing(member, {})]
    for call in header:
        call.options.pop("chord", None)
    return [*header, *_failing(node.body, place)]
