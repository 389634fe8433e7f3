"""Workflows as they are shown: trees of names, ids and states."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from aioretryq.protocol.signature import TASK

if TYPE_CHECKING:
    from collections.abc import Iterable

TOGETHER = 50
"""Equal members of a group that are drawn one by one; more of them are one node with their number."""

MOST = 200
"""Members of a group that are drawn at all, where they differ; a last node tells of the others."""


class Share(Struct, frozen=True):
    """How far a group is: of `total` members so many are done, and so many of these have failed."""

    done: int
    failed: int
    total: int


class Tree(Struct, frozen=True):
    """A workflow to be shown: a call (`task`), or a chain, group or chord of others, or a place for what is left out.

    `children` are the steps of a chain, the members of a group, and of a chord its header (a group) and its body; of
    a task what it calls, or has called, next: `role` says as what (`link`, `link_error`). `state` is None of what was
    only composed. With `count` it stands for that many equal ones. `share` is None of all but groups that were sent.
    """

    label: str
    id: str | None = None
    state: str | None = None
    kind: str = TASK
    children: tuple[Tree, ...] = ()
    role: str = ""
    count: int = 1
    share: Share | None = None

    @property
    def title(self) -> str:
        """The same, of a group with how far it is: `group: 3 of 5 done, 1 failed`."""
        if self.share is None:
            return self.text
        failed = f", {self.share.failed:,} failed" if self.share.failed else ""
        return f"{self.text}: {self.share.done:,} of {self.share.total:,} done{failed}"

    @property
    def text(self) -> str:
        """What to call it: `add`, `add x 99,950`, or its id where nobody knows its name."""
        name = self.label or (self.kind if self.kind != TASK else "") or self.id or TASK
        return name if self.count == 1 else f"{self.label or self.kind} x {self.count:,}"


MORE = "more"
"""The kind of a node that stands for what is not drawn."""


def collapsed(members: Iterable[Tree]) -> tuple[Tree, ...]:
    """Of those of which there are more than fifty, but for their ids, one with their number.

    Keeps only what is drawn: there may be a million.
    """
    found: dict[Tree, list[Tree]] = {}
    counts: dict[Tree, int] = {}
    left = 0
    for member in members:
        kind = _nameless(member)
        if kind not in found and len(found) >= MOST:
            left += member.count
            continue
        counts[kind] = counts.get(kind, 0) + member.count
        same = found.setdefault(kind, [])
        if len(same) < TOGETHER:
            same.append(member)
    shown = [
        each
        for kind, same in found.items()
        for each in ([replace(kind, count=counts[kind])] if counts[kind] > TOGETHER else same)
    ]
    left += sum(each.count for each in shown[MOST:])
    return (*shown[:MOST], *([Tree(f"{left:,} more", kind=MORE)] if left else ()))


def consecutive(steps: Iterable[Tree]) -> tuple[Tree, ...]:
    """The same for steps of a chain: those that follow each other."""
    runs = (list(run) for _, run in itertools.groupby(steps, _nameless))
    shown = [
        each
        for run in runs
        for each in ([replace(_nameless(run[0]), count=len(run))] if len(run) > TOGETHER else run)
    ]
    if len(shown) <= MOST:
        return tuple(shown)
    return (*shown[: MOST - 1], Tree(f"{len(shown) - MOST:,} more", kind=MORE), shown[-1])


def _nameless(tree: Tree) -> Tree:
    """What is compared: everything but ids."""
    if tree.id is None and not tree.children:
        return replace(tree, count=1)
    return replace(tree, id=None, count=1, children=tuple(map(_inner, tree.children)))


def _inner(tree: Tree) -> Tree:
    return replace(tree, id=None, children=tuple(map(_inner, tree.children)))
