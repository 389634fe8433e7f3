"""Calls that follow from a call, as their sender names them: `link=`, `link_error=`, `chain=`, `chord=`. Pure.

All are read before anything is sent. Workers read them when the task has come, which is too late to say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aioretryq.calling import Callee, CallOptions, options_of_signature
from aioretryq.errors import ConfigError, ProtocolError
from aioretryq.protocol.saferepr import saferepr
from aioretryq.protocol.signature import TASK, Node, read_signature, read_signatures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.message import Signature

LINKS = ("link", "link_error", "chain")


def signature_of_call(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], *, immutable: bool
) -> Signature:
    """A call as others carry it. Raises ConfigError for options that no call has."""
    written = dict(with_signatures(options, name))
    CallOptions.of(written, name)
    stamps = written.pop("stamps", None) or {}  # in a signature they are options themselves
    return {
        "task": name,
        "args": list(args),
        "kwargs": dict(kwargs),
        "options": {**written, **stamps},
        "subtask_type": None,
        "immutable": immutable,
    }


def with_signatures(options: Mapping[str, Any], whose: str) -> Mapping[str, Any]:
    """Options of a call, with tasks written as signatures. Raises ConfigError for what no worker could call."""
    written: dict[str, Any] = {}
    for name in (*LINKS, "chord"):
        given = options.get(name)
        if given is None:
            continue
        several = isinstance(given, list | tuple) and name != "chord"
        try:
            written[name] = [_signature(each) for each in given] if several else _signature(given)
        except (ProtocolError, ConfigError, RecursionError) as error:
            raise ConfigError(f"A call of {whose}, {name}: {error} Nothing was sent.") from None
    return {**options, **written} if written else options


def _signature(value: Any) -> Signature:
    if not isinstance(value, Mapping) and isinstance(value, Callee):
        value = value.signature()
    if not isinstance(value, Mapping):
        raise ProtocolError(f"What follows is a task, or the dictionary of a signature, not {saferepr(value, 80)}.")
    found = dict(value)
    _check(read_signature(found))
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
