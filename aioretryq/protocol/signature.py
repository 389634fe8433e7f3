"""Signatures: calls, and workflows of calls, as the dictionaries that Celery's canvas embeds in messages.

They come from whoever can send a message: everything is checked here, once, and what is wrong is a ProtocolError.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from aioretryq.errors import ProtocolError
from aioretryq.protocol.members import Members
from aioretryq.protocol.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

TASK, CHAIN, GROUP, CHORD = "task", "chain", "group", "chord"
_KINDS = {
    None: TASK,
    "": TASK,
    "xmap": TASK,
    "xstarmap": TASK,
    "chunks": TASK,
    CHAIN: CHAIN,
    GROUP: GROUP,
    CHORD: CHORD,
}
_NAMES = {CHAIN: "celery.chain", GROUP: "celery.group", CHORD: "celery.chord"}

MAX_DEPTH = 64
"""How deep workflows may be nested in each other. What Celery's clients compose is a few levels deep; each costs
stack here, and in whoever reads the message next."""

_TEXTS = ("task_id", "group_id", "root_id", "parent_id", "reply_to", "queue")
_LINKED = ("link", "link_error", "chain")
_CHECKED = (*_TEXTS, *_LINKED, "chord", "group_index", "stamped_headers")
_IMMUTABLE = frozenset({"group_id", "stamped_headers"})


class Node(Struct, frozen=True):
    """A signature that was read: a call (`task`), or a chain, group or chord of such.

    `steps` are the tasks of a chain, the members of a group, or the header of a chord, whose own options are
    `header`; `listed` if it was a list, not a group. Options stay as they were sent, by Celery's names. Members from
    a generator are `Members`: without a length, and perhaps to be read once.
    """

    kind: str
    task: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    immutable: bool = False
    subtask_type: str | None = None
    steps: tuple[Node, ...] | Members[Node] = ()
    header: dict[str, Any] = field(default_factory=dict)
    body: Node | None = None
    listed: bool = False

    @property
    def task_id(self) -> str | None:
        return self.options.get("task_id")

    def with_options(self, **options: Any) -> Node:
        return replace(self, options={**self.options, **options})


def steps_of(node: Node) -> tuple[Node, ...]:
    """All of them, at once: those of a generator are made now."""
    return node.steps if isinstance(node.steps, tuple) else tuple(node.steps)


def read_signature(value: Any, depth: int = 0, *, lenient: bool = False) -> Node:
    """The signature in a dictionary; ProtocolError for anything else.

    `lenient`: options that cannot be are left out, of a call that will never be made.
    """
    if depth > MAX_DEPTH:
        raise ProtocolError(f"A workflow is nested more than {MAX_DEPTH} levels deep.")
    if not isinstance(value, dict):
        raise ProtocolError(f"A signature is an object, not {saferepr(value, 80)}.")
    subtask_type = value.get("subtask_type")
    if not isinstance(subtask_type, str | None) or subtask_type not in _KINDS:
        raise ProtocolError(f"There is no subtask_type {saferepr(subtask_type, 80)}.")
    kind = _KINDS[subtask_type]
    task = value.get("task")
    if not isinstance(task, str) or not task:
        raise ProtocolError(f"The task of a signature is a name, not {saferepr(task, 80)}.")
    node = Node(
        kind=kind,
        task=task,
        args=tuple(_list(value.get("args"), "args")),
        kwargs=_object(value.get("kwargs"), "kwargs"),
        options=_options(value.get("options"), lenient),
        immutable=bool(value.get("immutable")),
        subtask_type=subtask_type or None,
    )
    if kind == TASK:
        return node
    read = partial(read_signature, depth=depth + 1, lenient=lenient)
    return _chord(node, read) if kind == CHORD else replace(node, kwargs={}, steps=_tasks(node, read))


def read_signatures(values: Any, name: str) -> list[Node]:
    """Of a list of dictionaries, or one, or none."""
    found = [values] if isinstance(values, dict) else _list(values, name)
    return [read_signature(value) for value in found]


def as_dict(node: Node) -> dict[str, Any]:
    """What `read_signature` read, with the keys that Celery writes."""
    kwargs: dict[str, Any] = node.kwargs
    if node.kind in (CHAIN, GROUP):
        kwargs = {"tasks": [as_dict(step) for step in node.steps]}
    elif node.kind == CHORD:
        group = Node(GROUP, _NAMES[GROUP], options=node.header, subtask_type=GROUP, steps=node.steps)
        header = [as_dict(step) for step in node.steps] if node.listed and not node.header else as_dict(group)
        body = None if node.body is None else as_dict(node.body)
        kwargs = {"kwargs": node.kwargs, "header": header, "body": body}
    return {
        "task": node.task,
        "args": list(node.args),
        "kwargs": kwargs,
        "options": node.options,
        "subtask_type": node.subtask_type,
        "immutable": node.immutable,
    }


def group_of(members: Iterable[Node], **options: Any) -> Node:
    steps = members if isinstance(members, Members) else tuple(members)
    return Node(GROUP, _NAMES[GROUP], options=options, subtask_type=GROUP, steps=steps)


def chain_of(steps: Iterable[Node], **options: Any) -> Node:
    return Node(CHAIN, _NAMES[CHAIN], options=options, subtask_type=CHAIN, steps=tuple(steps))


def chord_of(header: Node, body: Node | None, **options: Any) -> Node:
    """The group `header` with a body. It is written as a list, as Celery does, unless it has options of its own."""
    return Node(
        CHORD,
        _NAMES[CHORD],
        options=options,
        subtask_type=CHORD,
        steps=header.steps,
        header=header.options,
        body=body,
        listed=True,
    )


def merged_options(node: Node, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a call: what is given wins, except over what its group waits for, and over its stamps."""
    kept = _IMMUTABLE.union(node.options.get("stamped_headers") or ())
    wins = {
        name: value
        for name, value in given.items()
        if value is not None and not (name in kept and node.options.get(name) is not None)
    }
    return {**node.options, **wins}


def merged_arguments(node: Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Node:
    """With these arguments before its own, unless it is immutable."""
    if node.immutable or not (args or kwargs):
        return node
    return replace(node, args=(*args, *node.args), kwargs={**node.kwargs, **kwargs})


def listed(value: Any, name: str = "links") -> list[dict[str, Any]]:
    """Of what may be several signatures, one, or none: `link`, `link_error`, `chain`."""
    if value is None:
        return []
    found = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(each, dict) for each in found):
        raise ProtocolError(f"The {name} of a signature holds signatures, not {saferepr(value, 80)}.")
    return found


def linked(node: Node, option: str, signature: dict[str, Any]) -> Node:
    """With one more callback (`link`) or errback (`link_error`), once."""
    found = listed(node.options.get(option))
    return node if signature in found else node.with_options(**{option: [*found, signature]})


def size(node: Node) -> int:
    """How many parts of it return to a chord that it is a part of."""
    match node.kind:
        case "group":
            return sum(map(size, node.steps))
        case "chain":
            return next((found for step in reversed(steps_of(node)) if (found := size(step))), 0)
        case "chord" if node.body is not None:
            return size(node.body)
    return 1


# -- checks


def _tasks(node: Node, read: Callable[[Any], Node]) -> tuple[Node, ...]:
    return tuple(map(read, _list(node.kwargs.get("tasks"), "tasks")))


def _chord(node: Node, read: Callable[[Any], Node]) -> Node:
    header, body = node.kwargs.get("header"), node.kwargs.get("body")
    options: dict[str, Any] = {}
    if isinstance(header, dict):
        found = read(header)
        steps = found.steps if found.kind in (GROUP, CHAIN) else (found,)
        options = found.options if found.kind == GROUP else {}
    else:
        steps = tuple(map(read, _list(header, "header")))
    if body is None:
        raise ProtocolError("A chord has no body.")
    return replace(
        node,
        kwargs=_object(node.kwargs.get("kwargs"), "kwargs"),
        steps=steps,
        header=options,
        body=read(body),
        listed=not isinstance(header, dict),
    )


def _options(value: Any, lenient: bool) -> dict[str, Any]:
    options = _object(value, "options")
    wrong = []
    for name in _CHECKED:
        try:
            if options.get(name) is not None:
                _check_option(name, options[name])
        except ProtocolError:
            if not lenient:
                raise
            wrong.append(name)
    return {name: value for name, value in options.items() if name not in wrong} if wrong else options


def _check_option(name: str, value: Any) -> None:
    if name in _TEXTS:
        if not isinstance(value, str) or not _is_text(value):
            raise ProtocolError(f"The {name} of a signature is a text, not {saferepr(value, 80)}.")
    elif name in _LINKED:
        listed(value, name)
    elif name == "chord":
        if not isinstance(value, dict):
            raise ProtocolError(f"The chord of a signature is a signature, not {saferepr(value, 80)}.")
    elif name == "group_index":
        if type(value) is not int or abs(value) >= 2**53:  # Redis scores are doubles
            raise ProtocolError(f"The group_index of a signature is an integer, not {saferepr(value, 80)}.")
    elif not all(isinstance(each, str) for each in _list(value, "stamped_headers")):
        raise ProtocolError(f"stamped_headers are names, not {saferepr(value, 80)}.")


def _list(value: Any, name: str) -> list[Any] | tuple[Any, ...]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise ProtocolError(f"The {name} of a signature are a list, not {saferepr(value, 80)}.")
    return value


def _object(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ProtocolError(f"The {name} of a signature are an object, not {saferepr(value, 80)}.")
    return value


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return bool(value)
