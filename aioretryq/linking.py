"""Signatures as their senders name them, alone and in `link=`, `link_error=`, `chain=`, `chord=`. Pure.

All are read before anything is sent. Workers read them when the task has come, which is too late to say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aioretryq.calling import Callee, CallOptions, options_of_signature
from aioretryq.errors import ConfigError, ProtocolError
from aioretryq.protocol.saferepr import saferepr
from aioretryq.protocol.signature import MAX_DEPTH, TASK, Node, as_dict, read_signature, read_signatures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.message import Signature

LINKS = ("link", "link_error", "chain")
PARTS = {"chain": ("tasks",), "group": ("tasks",), "chord": ("header", "body")}
"""Keyword arguments of a signature that are signatures: by its subtask_type."""


def node_of_call(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], *, immutable: bool = False
) -> Node:
    """A call to be made later. Raises ConfigError for options that no call has."""
    return Node(
        TASK,
        name,
        args=tuple(map(_argument, args)),
        kwargs={each: _argument(value) for each, value in kwargs.items()},
        options=checked_options(options, name) if options else {},
        immutable=immutable,
    )


def _argument(value: Any) -> Any:
    """A signature as the dictionary that its receiver will see, in whatever serializer."""
    composed = getattr(value, "node", None)
    return as_dict(composed) if isinstance(composed, Node) else value


def checked_options(options: Mapping[str, Any], whose: str, stamped: Sequence[str] = ()) -> dict[str, Any]:
    """Options of a call as a signature has them. Raises ConfigError for such that no call has.

    `stamped`: names of stamps that it has already.
    """
    written = dict(with_signatures(options, whose))
    stamps = written.pop("stamps", None) or {}  # in a signature they are options themselves
    written.update(stamps)
    CallOptions.of({"stamped_headers": [*stamped, *stamps], **written}, whose)
    return written


def with_signatures(options: Mapping[str, Any], whose: str) -> Mapping[str, Any]:
    """Options of a call, with tasks written as signatures. Raises ConfigError for what no worker could call."""
    found: dict[str, Any] = {}
    for name in (*LINKS, "chord"):
        given = options.get(name)
        if given is None:
            continue
        several = isinstance(given, list | tuple) and name != "chord"
        try:
            found[name] = [written(each) for each in given] if several else written(given)
        except (TypeError, ProtocolError, ConfigError, RecursionError) as error:
            raise ConfigError(f"A call of {whose}, {name}: {error} Nothing was sent.") from None
    return {**options, **found} if found else options


def node_of(value: Any) -> Node:
    """What somebody composes with: a signature, also one of Celery's, the dictionary of one, or a task.

    Raises ProtocolError for a dictionary that is none, TypeError for anything else.
    """
    if isinstance(value, Mapping):
        composed = getattr(value, "node", None)
        return composed if isinstance(composed, Node) else read_signature(plain(value))
    if isinstance(value, Callee):
        return node_of(value.signature())
    raise TypeError(f"A signature is what `task.s(...)` gives, or its dictionary, not {saferepr(value, 80)}.")


def written(value: Any) -> Signature:
    """The same, as messages carry it. All that is linked to it is checked, too."""
    node = node_of(value)
    _check(node)
    return as_dict(node)


def plain(signature: Any, depth: int = 0) -> Signature:
    """The dictionary of a signature, with dictionaries for the signatures in it. Raises ProtocolError."""
    if isinstance(composed := getattr(signature, "node", None), Node):
        return as_dict(composed)
    if not isinstance(signature, Mapping):
        raise ProtocolError(f"A signature is an object, not {saferepr(signature, 80)}.")
    if depth > MAX_DEPTH:
        raise ProtocolError(f"A workflow is nested more than {MAX_DEPTH} levels deep, or in itself.")
    found = dict(signature)
    if isinstance(options := found.get("options"), Mapping):
        found["options"] = _with_plain(options, (*LINKS, "chord"), depth)
    if isinstance(kwargs := found.get("kwargs"), Mapping):
        found["kwargs"] = _with_plain(kwargs, PARTS.get(found.get("subtask_type") or "", ()), depth)
    return found


def _with_plain(values: Mapping[str, Any], names: Sequence[str], depth: int) -> dict[str, Any]:
    found = dict(values)
    for name in names:
        value = found.get(name)
        if isinstance(value, Mapping):
            found[name] = plain(value, depth + 1)
        elif isinstance(value, list | tuple):
            found[name] = [plain(each, depth + 1) for each in value]
    return found


def _check(node: Node) -> None:
    """What follows from what follows, too."""
    if node.kind == TASK:
        options_of_signature(node.options, node.task)
    for step in node.steps:
        _check(step)
    if node.body is not None:
        _check(node.body)
    for name in (*LINKS, "chord"):
        for linked in read_signatures(node.options.get(name), name):
            _check(linked)
