"""Signatures in a line, as one would write them: `w.add(1, 2) | w.mul(3)`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from aioretryq.protocol.members import Members
from aioretryq.protocol.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioretryq.protocol.signature import Node

_MAPS = ("celery.map", "celery.starmap", "celery.chunks")
_SHOWN = 10
_LONG = 200


def worded(node: Node, *, inside: bool = False) -> str:
    """`inside` a chain: where a chain needs brackets."""
    match node.kind:
        case "chain" if len(steps := tuple(node.steps)) > 1:
            shown = [worded(step, inside=True) for step in _cut(steps)]
            if len(steps) > _SHOWN:
                shown.insert(-1, f"... {len(steps) - _SHOWN} more")
            text = " | ".join(shown)
            return f"({text})" if inside else text
        case "chain":
            return f"chain({_list(node.steps)})"
        case "group":
            return f"group({_list(node.steps)})"
        case "chord":
            return f"chord([{_list(node.steps)}], {'None' if node.body is None else worded(node.body)})"
    return _call(node)


def _call(node: Node) -> str:
    if node.task in _MAPS and isinstance(task := node.kwargs.get("task"), dict):
        star = "" if node.task == "celery.map" else "*"
        return f"[{task.get('task')}({star}x) for x in {saferepr(node.kwargs.get('it'), _LONG)}]"
    given = [saferepr(value, _LONG) for value in node.args]
    given += [f"{name}={saferepr(value, _LONG)}" for name, value in node.kwargs.items()]
    return f"{node.task}({', '.join(given)})"


def _cut(steps: tuple[Node, ...]) -> tuple[Node, ...]:
    """The first ones, and the last."""
    return steps if len(steps) <= _SHOWN else (*steps[: _SHOWN - 1], steps[-1])


def _list(steps: Iterable[Node]) -> str:
    if isinstance(steps, Members):
        return repr(steps)
    found = list(steps)
    shown = [worded(step) for step in islice(found, _SHOWN)]
    return ", ".join([*shown, *([f"... {len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])])
