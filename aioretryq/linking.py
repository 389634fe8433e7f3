"""Signatures as their senders name them, alone and in `link=`, `link_error=`, `chain=`, `chord=`. Pure.

All are read before anything is sent. Workers read them when the task has come, which is too late to say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from aioretryq.calling import Callee, CallOptions, check_stamps, options_of_signature
from aioretryq.errors import ConfigError, ProtocolError
from aioretryq.protocol.saferepr import saferepr
from aioretryq.protocol.signature import CHORD, MAX_DEPTH, TASK, Node, as_dict, read_signature, read_signatures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.message import Signature

LINKS = ("link", "link_error", "chain")
PARTS = {"chain": ("tasks",), "group": ("tasks",), "chord": ("header", "body")}
"""Keyword arguments of a signature that are signatures: by its subtask_type."""

_ATOMS = frozenset({int, str, float, bool, bytes, type(None)})

LEVELS = 5 * MAX_DEPTH
"""Of lists and dictionaries: each level of a workflow is up to four of them."""

NO_BODY = "A chord needs a body: chord(header, body), or chord(header)(body)."
TOO_DEEP = (
    f"A workflow is nested more than {MAX_DEPTH} levels deep: no worker would read it. A group that something "
    "follows is a level, and so is what follows it: let a step in the middle of a long line of groups start the rest "
    "of it, with self.replace(...)."
)


def node_of_call(
    name: str,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    *,
    immutable: bool = False,
) -> Node:
    """A call to be made later. Raises ConfigError for options that no call has, TypeError for no arguments at all."""
    if not name or not isinstance(name, str):
        raise ConfigError(f"A signature needs the name of a task, not {name!r}.")
    positional, named = arguments_of(args, kwargs, name)
    return Node(
        TASK,
        name,
        args=tuple(map(kept, positional)),
        kwargs={each: kept(value) for each, value in named.items()},
        options=checked_options(options, name) if options else {},
        immutable=immutable,
    )


def arguments_of(args: Any, kwargs: Any, whose: str) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """What a call is given: None is nothing. TypeError for what holds no arguments."""
    if args is None:
        args = ()
    if isinstance(args, str | bytes | Mapping) or not isinstance(args, Iterable):
        raise TypeError(f"The arguments of a call of {whose} are a list or tuple, not {saferepr(args, 80)}.")
    if kwargs is None:
        kwargs = {}
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"The keyword arguments of a call of {whose} are a dictionary, not {saferepr(kwargs, 80)}.")
    return tuple(args), kwargs


def kept(value: Any, levels: int = LEVELS) -> Any:
    """A copy that nobody else can change, as far as lists and dictionaries go. A signature in it is the dictionary
    that its receiver will see, in whatever serializer."""
    kind = type(value)
    if kind in _ATOMS or not levels:  # whoever serialises what is so deep says what is wrong with it
        return value
    if kind is list:
        return [kept(each, levels - 1) for each in value]
    if kind is tuple:
        return tuple([kept(each, levels - 1) for each in value])
    if kind is dict:
        return {name: kept(each, levels - 1) for name, each in value.items()}
    composed = getattr(value, "node", None) if isinstance(value, Mapping) else None
    return as_dict(composed) if isinstance(composed, Node) else value


def checked_options(options: Mapping[str, Any], whose: str, stamped: Sequence[str] = ()) -> dict[str, Any]:
    """Options of a call as a signature has them: times as texts. Raises ConfigError for such that no call has.

    `stamped`: names of stamps that it has already.
    """
    written = dict(with_signatures(options, whose))
    CallOptions.of({"stamped_headers": stamped, **written} if stamped else written, whose)
    stamps = written.pop("stamps", None) or {}  # in a signature they are options themselves
    named = written.get("stamped_headers") or ()
    check_stamps([*stamps, *named], whose)
    written.update(stamps)
    if stamps:
        written["stamped_headers"] = list(dict.fromkeys([*stamped, *named, *stamps]))
    return with_times({name: kept(value) for name, value in written.items()})


def with_times(options: dict[str, Any]) -> dict[str, Any]:
    """As they travel: JSON knows neither moments nor durations."""
    for name in ("eta", "expires"):
        value = options.get(name)
        if isinstance(value, datetime):
            options[name] = value.isoformat()
        elif isinstance(value, timedelta):
            options[name] = value.total_seconds()
    return options


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
        except (TypeError, ProtocolError, ConfigError) as error:
            raise ConfigError(f"A call of {whose}, {name}: {error} Nothing was sent.") from None
    return {**options, **found} if found else options


def node_of(value: Any) -> Node:
    """What somebody composes with: a signature, also one of Celery's, the dictionary of one, or a task.

    Raises ProtocolError for a dictionary that is none, TypeError for anything else.
    """
    if isinstance(value, Mapping):
        composed = getattr(value, "part", None)
        return composed if isinstance(composed, Node) else read_signature(plain(value))
    if isinstance(value, Callee):
        return node_of(value.signature())
    raise TypeError(f"A signature is what `task.s(...)` gives, or its dictionary, not {saferepr(value, 80)}.")


def written(value: Any) -> Signature:
    """The same, as messages carry it. All that is linked to it is checked, too."""
    try:
        node = node_of(value)
        check_links(node)
        return as_dict(node)
    except RecursionError:
        raise ConfigError(TOO_DEEP) from None


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
        made = _with_plain(options, (*LINKS, "chord"), depth)
        found["options"] = with_times({name: kept(value) for name, value in made.items()})
    if isinstance(kwargs := found.get("kwargs"), Mapping):
        parts = PARTS.get(found.get("subtask_type") or "", ())
        made = _with_plain(kwargs, parts, depth)
        found["kwargs"] = made if parts else {name: kept(value) for name, value in made.items()}
    if isinstance(found.get("args"), list | tuple):
        found["args"] = kept(found["args"])
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


def check_links(node: Node, depth: int = 0) -> None:
    """ConfigError or ProtocolError for what no worker could call; also of what follows from what follows."""
    if depth > MAX_DEPTH:
        raise ConfigError(TOO_DEEP)
    if node.kind == TASK:
        options_of_signature(node.options, node.task)
    if node.kind == CHORD and node.body is None:
        raise ConfigError(NO_BODY)
    for step in node.steps:
        check_links(step, depth + 1)
    if node.body is not None:
        check_links(node.body, depth + 1)
    for name in (*LINKS, "chord"):
        for linked in read_signatures(node.options.get(name), name):
            check_links(linked, depth + 1)
