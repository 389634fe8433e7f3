"""Who takes a task's place in a workflow (`Task.replace`), or one beside it (`Task.add_to_chord`). Pure.

As Celery does it (celery/app/task.py): whoever waits for the task, or comes after it, must not see a difference. So
the last call of what takes its place has its id, its callbacks, its place in a chord, and what is left of its chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from aioretryq.errors import ConfigError
from aioretryq.protocol.signature import CHAIN, CHORD, GROUP, TASK, Node, chord_of, linked, listed, steps_of
from aioretryq.workflows.shapes import link_error, spliced

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.message import Signature, TaskMessage

IDS = UUID("0f6c2a5e-6a44-4c1d-9b0c-5d3f6a7e8b91")
"""The namespace of ids that are made of the id of the task that sends."""

ACCUMULATE = Node(TASK, "celery.accumulate", kwargs={"index": 0})
"""Makes one task's value of the values of a group."""

_OF_PLACE = ("task_id", "group_id", "group_index", "chord", "root_id", "parent_id", "chain")
"""Options that say where in a workflow a call is."""


class Place(Struct, frozen=True):
    """Where a task is in its workflow."""

    task_id: str
    group_id: str | None = None
    group_index: int | None = None
    chord: Signature | None = None


def check_replacement(node: Node) -> None:
    """ConfigError for what cannot do a task's work."""
    if node.options.get("chord") is not None:
        raise ConfigError("What replaces a task is not a part of a chord already: leave out its `chord`.")
    if node.kind == CHAIN and not spliced(node.steps):
        raise ConfigError("An empty chain, one without steps, cannot replace a task: it has no value.")


def replacement(node: Node, message: TaskMessage, *, in_header: bool) -> Node:
    """The workflow that takes the place of the message's task; what is left of its chain comes after it.

    `in_header`: errbacks are told of the tasks in headers, too. Raises ConfigError for what cannot take its place.
    """
    check_replacement(node)
    made = _everywhere(as_one(node), message)
    for errback in listed(message.errbacks):
        made = link_error(made, errback, in_header)
    made = _at_the_end(made, lambda last: _called_back(last, listed(message.callbacks)))
    return in_place(made, Place(message.id, message.group, message.group_index, message.chord))


def rest_of_chain(message: TaskMessage) -> list[Signature]:
    """What follows the replacement, told how often the task before it was replaced."""
    nesting = {"replaced_task_nesting": message.replaced_task_nesting + 1}
    return [{**step, "options": {**(step.get("options") or {}), **nesting}} for step in message.chain or ()]


def in_place(node: Node, place: Place) -> Node:
    """With the call that comes last at this place."""
    options = {name: getattr(place, name) for name in place.__struct_fields__}
    given = {name: value for name, value in options.items() if value is not None}
    # A chain's or chord's own id would be that of its last call.
    return _at_the_end(_without_place(node), lambda last: _without_place(last).with_options(**given))


def as_one(node: Node) -> Node:
    """The same with one call at its end, which has its value: of a group a list."""
    if node.kind == GROUP:
        return replace(chord_of(node, ACCUMULATE), args=node.args)
    if node.kind == CHAIN:
        *before, last = spliced(node.steps) or (node,)
        return node if last is node else replace(node, steps=(*before, as_one(last)))
    if node.kind == CHORD and node.body is not None:
        return replace(node, body=as_one(node.body))
    return node


def _called_back(node: Node, callbacks: list[Signature]) -> Node:
    for callback in callbacks:
        node = linked(node, "link", callback)
    return node


def _at_the_end(node: Node, change: Callable[[Node], Node]) -> Node:
    if node.kind == CHAIN and node.steps:
        *before, last = steps_of(node)
        return replace(node, steps=(*before, _at_the_end(last, change)))
    if node.kind == CHORD and node.body is not None:
        return replace(node, body=_at_the_end(_without_place(node.body), change))
    return change(node)


def _without_place(node: Node) -> Node:
    return replace(node, options={name: value for name, value in node.options.items() if name not in _OF_PLACE})


def _everywhere(node: Node, message: TaskMessage) -> Node:
    """With the stamps of the task, where it has none of that name, and one replacement more behind it."""
    if node.kind != TASK:
        steps = tuple(_everywhere(step, message) for step in steps_of(node))
        return replace(node, steps=steps, body=None if node.body is None else _everywhere(node.body, message))
    own = list(node.options.get("stamped_headers") or ())
    stamps = {name: message.stamps.get(name) for name in message.stamped_headers or () if name not in own}
    options: dict[str, Any] = {**stamps, "replaced_task_nesting": message.replaced_task_nesting + 1}
    if stamps:
        options["stamped_headers"] = [*own, *stamps]
    return node.with_options(**options)
