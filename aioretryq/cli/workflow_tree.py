"""A workflow as lines of text, and as JSON. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import asdict

from aioretryq import states
from aioretryq.cli.event_text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aioretryq.drawing.trees import Tree

GAP = 2
"""Spaces between columns."""


class Line(Struct, frozen=True):
    """`branch` and name, the state, and the id."""

    name: str
    state: str = ""
    id: str = ""
    wanted: bool = False


def lines(tree: Tree, wanted: str = "") -> list[str]:
    """In columns."""
    return [text for text, _ in columns(list(rows(tree, wanted)))]


def columns(found: Sequence[Line]) -> list[tuple[str, str]]:
    """(Text, state) of each line."""
    names = max((len(each.name) for each in found if each.state or each.id), default=0) + GAP
    widths = max((len(each.state) for each in found), default=0) + GAP
    shown = []
    for each in found:
        mark = "  <--" if each.wanted else ""
        text = f"{each.name:{names}}{each.state:{widths}}{each.id}" if each.state or each.id else each.name
        shown.append((text.rstrip() + mark, each.state))
    return shown


def rows(tree: Tree, wanted: str = "", branch: str = "", below: str = "") -> Iterator[Line]:
    """It and what is in it; `branch` is what stands before it, `below` before its children."""
    role = f"{tree.role}: " if tree.role else ""
    state = tree.state or ""
    own_id = tree.id if tree.kind == "task" and tree.id is not None else ""
    name = branch + role + printable(title(tree))
    yield Line(name, printable(state), printable(own_id), bool(wanted) and tree.id == wanted)
    last = len(tree.children) - 1
    for number, child in enumerate(tree.children):
        mine, theirs = ("└─ ", "   ") if number == last else ("├─ ", "│  ")
        yield from rows(child, wanted, below + mine, below + theirs)


def title(tree: Tree) -> str:
    """Of a task without a name not its id, which has a column of its own."""
    return "task" if tree.kind == "task" and not tree.label and tree.count == 1 else tree.title


def tally(tree: Tree) -> Counter[str]:
    """Of all tasks in it, how many are in which state; those of which none is known are not counted."""
    counts: Counter[str] = Counter()
    waiting = [(tree, 1)]
    while waiting:
        node, times = waiting.pop()
        if node.state is not None:
            counts[node.state] += times * node.count
        waiting += [(child, times * node.count) for child in node.children]
    return counts


def is_done(tree: Tree) -> bool:
    """Whether nothing in it will change any more, as far as is known."""
    shares = [node.share for node in _nodes(tree) if node.share is not None]
    return states.FINAL.issuperset(tally(tree)) and all(share.done == share.total for share in shares)


def open_ids(tree: Tree) -> Iterator[str]:
    """Of tasks that are not done."""
    for node in _nodes(tree):
        if node.id is not None and node.state is not None and node.state not in states.FINAL:
            yield node.id


def _nodes(tree: Tree) -> Iterator[Tree]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.children


def as_json(tree: Tree) -> dict[str, Any]:
    """What is known of it; what has no value is left out."""
    found: dict[str, Any] = {"kind": tree.kind}
    if tree.label:
        found["task" if tree.kind == "task" else "text"] = tree.label
    for name in ("id", "state", "role"):
        if value := getattr(tree, name):
            found[name] = value
    if tree.count != 1:
        found["count"] = tree.count
    if tree.share is not None:
        found["members"] = asdict(tree.share)
    if tree.children:
        found["children"] = [as_json(child) for child in tree.children]
    return found
