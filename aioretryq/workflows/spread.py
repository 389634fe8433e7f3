"""Options given to a workflow, or set on a chain, group or chord in it, as options of the calls in it. Pure.

Celery gives them to the first step of a chain, and over the heads of a group's members. Here each step has them that
does not say otherwise itself: its own options come first, then those of the chain, group or chord it is in, from the
inside to the outside, then those of the call. Only what we compose is read so; signatures that come in messages are
read as Celery reads them. What follows from a step (its links) is not part of the workflow.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import CHAIN, CHORD, TASK, Node
from aioretryq.protocol.task import format_moment
from aioretryq.workflows.shapes import is_empty_chain

if TYPE_CHECKING:
    from collections.abc import Mapping

_ADDRESS = frozenset({"queue", "exchange", "exchange_type", "routing_key"})
_DELAY = frozenset({"countdown", "eta"})
_EACH = frozenset("priority expires time_limit soft_time_limit serializer compression ignore_result".split())
_MERGED = frozenset({"headers", "stamped_headers", "stamps"})
_TOGETHER = (_ADDRESS, _DELAY)
"""Who sets one of these has said all there is to say: the others mean something else without it."""


def spread(node: Node, options: Mapping[str, Any], now: float) -> tuple[Node, dict[str, Any]]:
    """The workflow with what is for its steps, and the options that are for the call itself.

    A call is as it is: whatever is given with it is the call's, but for stamps, which add to its own.
    """
    inherited, rest = _parted(options, now)
    if node.kind == TASK:
        stamps = {name: inherited[name] for name in inherited.get("stamped_headers") or () if name in inherited}
        if not stamps:
            return node, dict(options)
        made = _joined(node.options, {**stamps, "stamped_headers": inherited["stamped_headers"]})
        names = {*stamps, "stamps", "stamped_headers"}
        return replace(node, options=made), {name: value for name, value in options.items() if name not in names}
    if (task_id := rest.pop("task_id", None)) is not None:
        node = node.with_options(task_id=task_id)
    return _spread(node, inherited, now), rest


def _spread(node: Node, inherited: dict[str, Any], now: float) -> Node:
    if node.kind == TASK:
        return replace(node, options=_joined(node.options, inherited)) if inherited else node
    own, rest = _parted(node.options, now)
    mine = _joined(own, inherited)
    if node.kind == CHAIN:
        return _chain(node, mine, rest, now)
    if node.kind == CHORD and node.body is not None:
        of_header, header_rest = _parted(node.header, now)
        header = _joined(of_header, mine)
        frozen = rest.get("task_id") == node.header.get("task_id")  # by Celery, with the header's id
        last = node.body if frozen else _named(node.body, rest.pop("task_id", None))
        body = _spread(last, _later(mine), now)
        return replace(node, options=rest, header=header_rest, steps=_group(node, header, now), body=body)
    return replace(node, options=rest, steps=_group(node, mine, now))


def _named(last: Node, task_id: str | None) -> Node:
    """What a chain or chord ends in has its id: their result is its result."""
    return last if task_id is None or last.task_id is not None else last.with_options(task_id=task_id)


def _chain(node: Node, inherited: dict[str, Any], rest: dict[str, Any], now: float) -> Node:
    given = list(node.steps)
    last = next((number for number, step in reversed(list(enumerate(given))) if not is_empty_chain(step)), None)
    if last is not None:
        given[last] = _named(given[last], rest.pop("task_id", None))
    steps, here = [], inherited
    for step in given:
        steps.append(_spread(step, here, now))
        if not is_empty_chain(step):
            here = _later(inherited)
    return replace(node, options=rest, steps=tuple(steps))


def _group(node: Node, inherited: dict[str, Any], now: float) -> tuple[Node, ...] | Members[Node]:
    if isinstance(node.steps, Members):
        return node.steps.map(lambda member: _spread(member, inherited, now))
    return tuple(_spread(member, inherited, now) for member in node.steps)


def _later(inherited: dict[str, Any]) -> dict[str, Any]:
    """For steps that wait for others anyway."""
    return {name: value for name, value in inherited.items() if name not in _DELAY}


def _parted(options: Mapping[str, Any], now: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what steps inherit, what is left). Stamps are options themselves, named by `stamped_headers`."""
    stamps = set(options.get("stamped_headers") or ())
    names = _ADDRESS | _DELAY | _EACH | _MERGED | stamps
    inherited = {name: value for name, value in options.items() if name in names and value is not None}
    if "expires" in inherited:
        inherited["expires"] = _moment(inherited["expires"], now)
    if isinstance(inherited.get("eta"), datetime):
        inherited["eta"] = inherited["eta"].isoformat()
    if "countdown" in inherited:
        inherited.pop("eta", None)
    if given := inherited.pop("stamps", None):
        inherited.update(given)
        inherited["stamped_headers"] = sorted({*stamps, *given})
    return inherited, {name: value for name, value in options.items() if name not in names}


def _moment(expires: Any, now: float) -> Any:
    """One for all steps, however long those before them take."""
    match expires:
        case datetime():
            return expires.isoformat()
        case timedelta():
            return format_moment(now + expires.total_seconds())
        case bool() | str():
            return expires
        case int() | float():
            return format_moment(now + expires)
    return expires


def _joined(own: Mapping[str, Any], inherited: Mapping[str, Any]) -> dict[str, Any]:
    said = {name for name, value in own.items() if value is not None}
    for names in _TOGETHER:
        if said & names:
            said |= names
    made = {**own, **{name: value for name, value in inherited.items() if name not in said}}
    if own.get("headers") and inherited.get("headers"):
        made["headers"] = {**inherited["headers"], **own["headers"]}
    if own.get("stamped_headers") and inherited.get("stamped_headers"):
        made["stamped_headers"] = sorted({*own["stamped_headers"], *inherited["stamped_headers"]})
    return made
