"""From workflows to messages: what has to be sent for a chain, group, chord or call. Pure.

Celery's rules (celery/canvas.py) without its mutable signatures: `Compiler.apply` takes a signature that was read and
adds to a `Plan` the messages to send now and the chords to open before; what comes later travels inside them.
Ids that the sender gave stay; all others are made by `new_id`, in an order that only depends on the signature.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from aioretryq.errors import EncodeError, ProtocolError
from aioretryq.protocol import jsontypes
from aioretryq.protocol.signature import (
    CHAIN,
    GROUP,
    TASK,
    Node,
    as_dict,
    chord_of,
    group_of,
    listed,
    merged_arguments,
    merged_options,
    read_signature,
    size,
)
from aioretryq.workflows.plan import Opening, Plan
from aioretryq.workflows.promises import Handle
from aioretryq.workflows.shapes import (
    OF_CHAIN,
    body_link_error,
    link,
    link_error,
    spliced,
    ungrouped,
    unrolled,
)

if TYPE_CHECKING:
    from aioretryq.workflows.sender import Sender


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


MAPS = ("celery.map", "celery.starmap", "celery.chunks")  # their subtask_type is None in what Celery composes
_NOT_FOR_BODY = ("task_id", "parent_id", "link", "link_error", "countdown", "eta")
_NOT_FOR_HEADER = ("task_id", "group_id", "group_index", "link", "link_error", "chain", "chord")
NO_KWARGS: Mapping[str, Any] = {}


class Compiler:
    """Expands signatures into one plan."""

    def __init__(self, sender: Sender) -> None:
        self.plan = Plan()
        self._sender = sender
        self._new_id = sender.new_id
        self._errbacks_in_header = sender.errbacks_in_header

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
            later = listed(merged_options(node, given.options).get("chain"))
            return self._followed(node, given, later) if later else self._group(node, given)
        return self._chord(node, given)

    def _child(self, handle: Handle, given: Given) -> Handle:
        if given.child:
            self.plan.children.append(handle.as_tuple())
        return handle

    def _call(self, node: Node, given: Given) -> Handle:
        options = merged_options(node, given.options)
        called = merged_arguments(node, given.args, given.kwargs)
        task_id = options["task_id"] = options.get("task_id") or self._new_id()
        self.plan.messages.append(self._sender.compose(node.task, called.args, called.kwargs, routed(node, options)))
        return self._child(Handle(task_id, task=node.task), given)

    def _chain(self, node: Node, given: Given) -> Handle | None:
        options = {**node.options, **_set(given.options)}
        arguments = node.args if node.immutable else (*given.args, *node.args)
        place = Place(*(options.get(name) for name in ("task_id", "group_id", "group_index", "chord", "root_id")))
        steps, handles = self._prepare(node.steps, arguments, given.kwargs, place)
        if not steps:
            return None
        for errback in listed(options.get("link_error")):
            steps = [link_error(step, errback, self._errbacks_in_header) for step in steps]
        for callback in listed(options.get("link")):
            steps[0] = link(steps[0], callback)
        first = steps.pop()
        later = [*listed(options.get("chain")), *map(as_dict, steps)]
        rest = {name: value for name, value in options.items() if name not in OF_CHAIN}
        handle = self.apply(first, options={**rest, "chain": later}, child=given.child)
        return handles[0] if steps else handle

    def _group(self, node: Node, given: Given) -> Handle:
        called, awaited = self._called(node, given)
        gid = called.options["group_id"]
        handles = []
        for index, member in enumerate(unrolled(node.steps)):
            frozen, handle = self._freeze(member, in_group(called, index))
            self._member(frozen, called, awaited)
            handles.append(handle)
        if len(handles) == 1 and handles[0].members is not None:
            return self._child(handles[0], given)  # as in Celery: of group(a | group(b, c)) the inner one
        made = Handle(gid, members=handles)
        return self._child(made, given) if handles else made

    def _followed(self, group: Node, given: Given, later: list[dict[str, Any]]) -> Handle | None:
        """A group as the body of a chord in the middle of a chain. Given to the members, as Celery gives it to them,
        the rest would run once for each."""
        *rest, following = later
        header = ungrouped(group)
        header.options.pop("chain", None)
        chord = replace(chord_of(header, read_signature(following)), args=group.args)
        options = {**given.options, "chain": rest or None}
        return self._chord(chord, replace(given, options=options))

    def _called(self, node: Node, given: Given) -> tuple[Given, Any]:
        """How each member of a group is called, and the chord they are parts of."""
        options = merged_options(node, given.options)
        gid = options.pop("task_id", None) or self._new_id()
        awaited = options.pop("chord", None)
        options.pop("group_index", None)
        options["group_id"] = gid
        return Given((*given.args, *node.args), given.kwargs, options, child=False), awaited

    def _member(self, frozen: Node, called: Given, awaited: Any) -> None:
        chord = awaited if awaited is not None else frozen.options.get("chord")
        self._apply(frozen, replace(called, options={**called.options, "chord": chord}))

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
        awaited = as_dict(body)
        self._open(gid, header, returned, awaited)
        passed = {name: value for name, value in options.items() if name not in _NOT_FOR_HEADER}
        arguments = node.args if node.immutable else (*given.args, *node.args)
        called_with = {**node.kwargs, **given.kwargs}
        self._group(header, Given(arguments, called_with, {**passed, "chord": awaited}, given.child))
        handle.origin.parent = returned
        return handle

    def _open(self, gid: str, header: Node, returned: Handle, body: dict[str, Any]) -> None:
        members = returned.members or []
        nested = any(member.members is not None for member in members)
        self.plan.openings.append(Opening(gid, size(header), returned.as_tuple() if nested else None, written(body)))

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
        options.setdefault("reply_to", self._sender.reply_to)
        if place.root_id is not None:
            options["root_id"] = place.root_id
        _put_in_group(options, place)
        return replace(node, options=options), Handle(task_id, task=node.task)

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
            raise ProtocolError("A chain without tasks cannot be the body of a chord.")
        options = {**node.options, "task_id": handles[0].id}
        return replace(node, args=(), options=options, steps=tuple(reversed(steps))), handles[0]

    def _freeze_chord(self, node: Node, place: Place) -> tuple[Node, Handle]:
        assert node.body is not None
        gid = node.header.get("task_id") or node.task_id or self._new_id()
        header = group_of(node.steps, **{**node.header, "task_id": gid})
        header, returned = self._freeze(header, Place(root_id=place.root_id))
        body, handle = self._freeze(_returning(node.body, place), place)
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
        flat = spliced(steps, self._errbacks_in_header)
        if flat:
            flat[0] = merged_arguments(flat[0], args, kwargs)
            flat[-1] = _returning(flat[-1], place)
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


def routed(node: Node, options: dict[str, Any]) -> dict[str, Any]:
    """Options of a call; `celery.map` and the like are routed by the name of the task that does the work."""
    if node.task not in MAPS or options.get("route_name"):
        return options
    task = node.kwargs.get("task")
    name = task.get("task") if isinstance(task, Mapping) else None
    return {**options, "route_name": name} if isinstance(name, str) and name else options


def _returning(last: Node, place: Place) -> Node:
    """What a part of a group ends in: not an empty group, of which nothing would ever return to who counts."""
    if place.group_index is None or last.kind != GROUP or any(True for _ in unrolled(last.steps)):
        return last
    return Node(TASK, "celery.accumulate", options=dict(last.options), immutable=True)


def in_group(called: Given, index: int) -> Place:
    return Place(group_id=called.options["group_id"], group_index=index, root_id=called.options.get("root_id"))


def written(body: dict[str, Any]) -> bytes:
    """Nothing if it is no JSON: then it travels with the parts only."""
    try:
        return jsontypes.dumps(body)
    except EncodeError:
        return b""


def _put_in_group(options: dict[str, Any], place: Place) -> None:
    if place.group_id is not None and options.get("group_id") is None:
        options["group_id"] = place.group_id
    if place.chord is not None:
        options["chord"] = place.chord
    if place.group_index is not None:
        options["group_index"] = place.group_index


def _set(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
