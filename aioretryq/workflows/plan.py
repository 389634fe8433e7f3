"""From workflows to messages: what has to be sent for a chain, group, chord or call. Pure.

Celery's rules (celery/canvas.py) without its mutable signatures: `Compiler.apply` takes a signature that was read and
adds to a `Plan` the messages to send now and the chords to open before; what comes later travels inside them.
Ids that the sender gave stay; all others are made by `new_id`, in an order that only depends on the signature.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from aioretryq.errors import ProtocolError
from aioretryq.message import TaskMessage
from aioretryq.protocol.signature import (
    CHAIN,
    GROUP,
    TASK,
    Node,
    as_dict,
    chord_of,
    group_of,
    merged_arguments,
    merged_options,
    size,
)
from aioretryq.workflows.shapes import OF_CHAIN, body_link_error, link, link_error, listed, spliced, unrolled

Compose = Callable[[str, tuple[Any, ...], Mapping[str, Any], Mapping[str, Any]], TaskMessage]
"""(task, args, kwargs, options) -> message; options by Celery's names, as a signature has them."""


@dataclass(eq=False, slots=True)
class Handle:
    """The result of something that will be sent: of a task, or with `members` of a group."""

    id: str
    parent: Handle | None = None
    members: list[Handle] | None = None

    def as_tuple(self) -> list[Any]:
        """As Celery stores it, in `children` and for groups."""
        parent = None if self.parent is None else self.parent.as_tuple()
        return [[self.id, parent], None if self.members is None else [each.as_tuple() for each in self.members]]

    @property
    def origin(self) -> Handle:
        """The first of its ancestors."""
        found = self
        while found.parent is not None:
            found = found.parent
        return found


class Opening(Struct, frozen=True):
    """A chord to open before its header is sent; `structure` is the header's result, where parts are groups."""

    group_id: str
    size: int
    structure: list[Any] | None = None


@dataclass(slots=True)
class Plan:
    messages: list[TaskMessage] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    children: list[list[Any]] = field(default_factory=list)
    """What the sender's own result lists as its children."""


class Place(Struct, frozen=True):
    """Where in a workflow something is: what freezing adds to its options."""

    task_id: str | None = None
    group_id: str | None = None
    group_index: int | None = None
    chord: dict[str, Any] | None = None
    root_id: str | None = None


class Given(Struct, frozen=True):
    """How something is called: what comes before its own arguments, and options that win over its own."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]
    child: bool = True


_NOT_FOR_BODY = ("task_id", "parent_id", "link", "link_error", "countdown", "eta")
_NOT_FOR_HEADER = ("task_id", "group_id", "group_index", "link", "link_error", "chain", "chord")
NO_KWARGS: Mapping[str, Any] = {}


class Compiler:
    """Expands signatures into one plan."""

    def __init__(self, compose: Compose, new_id: Callable[[], str], reply_to: str) -> None:
        self.plan = Plan()
        self._compose = compose
        self._new_id = new_id
        self._reply_to = reply_to

    def apply(
        self,
        node: Node,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] = NO_KWARGS,
        options: Mapping[str, Any] = NO_KWARGS,
        *,
        child: bool = True,
    ) -> Handle | None:
        """Call the signature with `args` before its own; the result of the last thing in it, None if it is empty.

        `child`: whether it becomes one of the sender's children.
        """
        return self._apply(node, Given(tuple(args), kwargs, options, child))

    def _apply(self, node: Node, given: Given) -> Handle | None:
        if node.kind == TASK:
            return self._call(node, given)
        if node.kind == CHAIN:
            return self._chain(node, given)
        if node.kind == GROUP:
            return self._group(node, given)
        return self._chord(node, given)

    def _child(self, handle: Handle, given: Given) -> Handle:
        if given.child:
            self.plan.children.append(handle.as_tuple())
        return handle

    def _call(self, node: Node, given: Given) -> Handle:
        options = merged_options(node, given.options)
        called = merged_arguments(node, given.args, given.kwargs)
        task_id = options["task_id"] = options.get("task_id") or self._new_id()
        self.plan.messages.append(self._compose(node.task, called.args, called.kwargs, options))
        return self._child(Handle(task_id), given)

    def _chain(self, node: Node, given: Given) -> Handle | None:
        options = {**node.options, **_set(given.options)}
        arguments = node.args if node.immutable else (*given.args, *node.args)
        place = Place(*(options.get(name) for name in ("task_id", "group_id", "group_index", "chord", "root_id")))
        steps, handles = self._prepare(node.steps, arguments, given.kwargs, place)
        if not steps:
            return None
        for errback in listed(options.get("link_error")):
            steps = [link_error(step, errback) for step in steps]
        for callback in listed(options.get("link")):
            steps[0] = link(steps[0], callback)
        first = steps.pop()
        later = [*listed(options.get("chain")), *map(as_dict, steps)]
        rest = {name: value for name, value in options.items() if name not in OF_CHAIN}
        handle = self.apply(first, options={**rest, "chain": later}, child=given.child)
        return handles[0] if steps else handle

    def _group(self, node: Node, given: Given) -> Handle:
        options = merged_options(node, given.options)
        gid = options.pop("task_id", None) or self._new_id()
        awaited = options.pop("chord", None)
        options.pop("group_index", None)
        options["group_id"] = gid
        arguments = (*given.args, *node.args)
        handles = []
        for index, member in enumerate(unrolled(node.steps)):
            place = Place(group_id=gid, group_index=index, root_id=options.get("root_id"))
            frozen, handle = self._freeze(member, place)
            chord = awaited if awaited is not None else frozen.options.get("chord")
            self._apply(frozen, Given(arguments, given.kwargs, {**options, "chord": chord}, child=False))
            handles.append(handle)
        made = Handle(gid, members=handles)
        return self._child(made, given) if handles else made

    def _chord(self, node: Node, given: Given) -> Handle | None:
        options = {**node.options, **_set(given.options)}
        gid = node.header.get("task_id") or node.task_id or self._new_id()
        task_id = options.get("task_id")
        body = self._chord_body(node, options)
        place = Place(task_id=None if task_id == gid else task_id, group_id=gid, root_id=body.options.get("root_id"))
        body, handle = self._freeze(body, place)
        header = group_of(node.steps, **{**node.header, "task_id": gid})
        header, returned = self._freeze(header, Place(group_id=gid, root_id=body.options.get("root_id")))
        if not header.steps:
            self.apply(body, ([],), child=given.child)
            return handle
        self._open(gid, header, returned)
        passed = {name: value for name, value in options.items() if name not in _NOT_FOR_HEADER}
        arguments = node.args if node.immutable else (*given.args, *node.args)
        called_with = {**node.kwargs, **given.kwargs}
        self._group(header, Given(arguments, called_with, {**passed, "chord": as_dict(body)}, given.child))
        handle.origin.parent = returned
        return handle

    def _open(self, gid: str, header: Node, returned: Handle) -> None:
        members = returned.members or []
        nested = any(member.members is not None for member in members)
        self.plan.openings.append(Opening(gid, size(header), returned.as_tuple() if nested else None))

    def _chord_body(self, node: Node, options: dict[str, Any]) -> Node:
        """The body with the chord's options and links."""
        assert node.body is not None
        body = node.body
        for callback in listed(options.get("link")):
            body = link(body, callback)
        for errback in listed(options.get("link_error")):
            body = body_link_error(body, errback)
        return body.with_options(
            **{name: value for name, value in options.items() if name not in _NOT_FOR_BODY and value is not None}
        )

    # -- freezing: ids for everything that will be sent later

    def _freeze(self, node: Node, place: Place) -> tuple[Node, Handle]:
        if node.kind == TASK:
            return self._freeze_task(node, place)
        if node.kind == CHAIN:
            return self._freeze_chain(node, place)
        if node.kind == GROUP:
            return self._freeze_group(node, place)
        return self._freeze_chord(node, place)

    def _freeze_task(self, node: Node, place: Place) -> tuple[Node, Handle]:
        options = dict(node.options)
        task_id = options["task_id"] = node.task_id or place.task_id or self._new_id()
        options.setdefault("reply_to", self._reply_to)
        if place.root_id is not None:
            options["root_id"] = place.root_id
        _put_in_group(options, place)
        return replace(node, options=options), Handle(task_id)

    def _freeze_group(self, node: Node, place: Place) -> tuple[Node, Handle]:
        options = dict(node.options)
        gid = options["task_id"] = node.task_id or self._new_id()
        _put_in_group(options, place)
        frozen = [
            self._freeze(member, replace(place, task_id=None, group_index=index))
            for index, member in enumerate(unrolled(node.steps))
        ]
        made = replace(node, options=options, steps=tuple(member for member, _ in frozen))
        return made, Handle(gid, members=[handle for _, handle in frozen])

    def _freeze_chain(self, node: Node, place: Place) -> tuple[Node, Handle]:
        place = replace(place, task_id=node.task_id or place.task_id)
        steps, handles = self._prepare(node.steps, node.args, NO_KWARGS, place)
        if not steps:
            raise ProtocolError("A chain without tasks cannot be a part of a workflow.")
        options = {**node.options, "task_id": handles[0].id}
        return replace(node, args=(), options=options, steps=tuple(reversed(steps))), handles[0]

    def _freeze_chord(self, node: Node, place: Place) -> tuple[Node, Handle]:
        assert node.body is not None
        gid = node.header.get("task_id") or node.task_id or self._new_id()
        header = group_of(node.steps, **{**node.header, "task_id": gid})
        header, returned = self._freeze(header, Place(root_id=place.root_id))
        body, handle = self._freeze(node.body, place)
        handle.origin.parent = returned
        made = replace(
            node, options={**node.options, "task_id": gid}, steps=header.steps, header=header.options, body=body
        )
        return made, handle

    def _prepare(
        self, steps: Iterable[Node], args: tuple[Any, ...], kwargs: Mapping[str, Any], place: Place
    ) -> tuple[list[Node], list[Handle]]:
        """The steps of a chain as messages carry them, the last one first, and their results.

        A group that something follows becomes the header of a chord with that as its body.
        """
        flat = spliced(steps)
        if flat:
            flat[0] = merged_arguments(flat[0], args, kwargs)
        nodes: list[Node] = []
        handles: list[Handle] = []
        for step in reversed(flat):
            here = Place(root_id=place.root_id) if nodes else place
            upgraded = step
            if step.kind == GROUP and nodes:
                upgraded = chord_of(step, nodes.pop())
                upgraded = replace(upgraded, args=step.args)
                handles.pop()
            frozen, handle = self._freeze(upgraded, here)
            nodes.append(frozen)
            handles.append(handle)
        for handle, before in itertools.pairwise(handles):
            handle.origin.parent = before
        return nodes, handles


def _put_in_group(options: dict[str, Any], place: Place) -> None:
    if place.group_id is not None and options.get("group_id") is None:
        options["group_id"] = place.group_id
    if place.chord is not None:
        options["chord"] = place.chord
    if place.group_index is not None:
        options["group_index"] = place.group_index


def _set(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
