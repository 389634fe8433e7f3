"""Flowcharts of trees: where the boxes and arrows are, and how Mermaid and Graphviz write them. Pure.

Names may come from anybody who can send a message: whatever is in them is shown as text, and never read as a part of
the chart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from aioretryq import states
from aioretryq.drawing.trees import MORE, Tree
from aioretryq.protocol.signature import CHAIN, CHORD, GROUP, TASK

if TYPE_CHECKING:
    from collections.abc import Iterator

COLORS = {
    states.SUCCESS: ("success", "#c8e6c9"),
    states.FAILURE: ("failure", "#ffcdd2"),
    states.REVOKED: ("revoked", "#e1bee7"),
    states.RETRY: ("retry", "#ffe0b2"),
    states.STARTED: ("started", "#b3e5fc"),
    states.PENDING: ("pending", "#eeeeee"),
}
"""Class and colour by state."""

ARROWS = 25
"""Between two groups; with more of them nobody sees which begins where."""

JOIN = "join"
"""The kind of a point through which arrows go."""

OTHER = ("other", "#b2dfdb")
"""States that tasks have made up, such as PROGRESS."""


@dataclass(slots=True)
class Spot:
    """A box with a text."""

    name: str
    tree: Tree


@dataclass(slots=True)
class Frame:
    """A box around others."""

    name: str
    title: str
    inside: list[Spot | Frame] = field(default_factory=list)


@dataclass(slots=True)
class Arrow:
    start: str
    end: str
    text: str = ""


Ends = tuple[list[str], list[str]]
"""(Boxes that it begins with, boxes that it ends with.)"""


class Chart:
    """All boxes and arrows of a tree."""

    def __init__(self, tree: Tree) -> None:
        self.top = Frame("", "")
        self.arrows: list[Arrow] = []
        self._frames = 0
        self._spots = 0
        self._place(tree, self.top)

    def spots(self, frame: Frame | None = None) -> Iterator[Spot]:
        for each in (frame or self.top).inside:
            if isinstance(each, Spot):
                yield each
            else:
                yield from self.spots(each)

    def _place(self, tree: Tree, where: Frame) -> Ends:
        parts = [child for child in tree.children if not child.role]
        if tree.count > 1 and parts and tree.kind != GROUP:
            self._frames += 1
            frame = Frame(f"g{self._frames}", _title(tree))
            where.inside.append(frame)
            return self._place(replace(tree, count=1), frame)
        if tree.kind in (TASK, MORE, JOIN):
            spot = self._spot(tree, where)
            for child in parts:
                self._join([spot], self._place(child, where)[0], "")
            starts, ends = [spot], [spot]
        elif tree.kind == GROUP:
            starts, ends = self._group(tree, parts, where)
        else:
            starts, ends = self._line(parts, where)
            if not starts:
                starts = ends = [self._spot(tree, where)]
        for child in tree.children:
            if child.role:
                self._join(ends, self._place(child, where)[0], child.role)
        return starts, ends

    def _group(self, tree: Tree, parts: list[Tree], where: Frame) -> Ends:
        self._frames += 1
        frame = Frame(f"g{self._frames}", _title(tree))
        where.inside.append(frame)
        starts: list[str] = []
        ends: list[str] = []
        for child in parts:
            first, last = self._place(child, frame)
            starts += first
            ends += last
        if not parts:
            starts = ends = [self._spot(tree, frame)]
        return starts, ends

    def _line(self, parts: list[Tree], where: Frame) -> Ends:
        starts: list[str] = []
        ends: list[str] = []
        for child in parts:
            first, last = self._place(child, where)
            self._join(ends, first, "")
            starts, ends = starts or first, last
        return starts, ends

    def _spot(self, tree: Tree, where: Frame) -> str:
        self._spots += 1
        name = f"n{self._spots}"
        where.inside.append(Spot(name, tree))
        return name

    def _join(self, ends: list[str], starts: list[str], text: str) -> None:
        """Every end with every start: where that would be too many, through a point between."""
        if len(ends) * len(starts) > ARROWS and min(len(ends), len(starts)) > 1:
            between = [self._spot(Tree("", kind=JOIN), self.top)]
            self._join(ends, between, text)
            ends, text = between, ""
        self.arrows += [Arrow(end, start, text) for end in ends for start in starts]


def _title(tree: Tree) -> str:
    return tree.title if tree.state is None else f"{tree.title}: {tree.state}"


def _empty(tree: Tree) -> str:
    if tree.kind == JOIN:
        return ""
    return f"empty {tree.kind}" if tree.kind in (CHAIN, GROUP, CHORD) else tree.text


# -- Mermaid


def mermaid_text(tree: Tree) -> str:
    chart = Chart(tree)
    lines = ["flowchart TD", *_mermaid_frame(chart.top, "    ")]
    for arrow in chart.arrows:
        text = f"|{mermaid_quoted(arrow.text)}|" if arrow.text else ""
        dashed = "-.->" if arrow.text == "link_error" else "-->"
        lines.append(f"    {arrow.start} {dashed}{text} {arrow.end}")
    styles: dict[str, list[str]] = {}
    for spot in chart.spots():
        if spot.tree.state is not None:
            styles.setdefault(spot.tree.state, []).append(spot.name)
    classes: dict[tuple[str, str], list[str]] = {}
    for state, names in styles.items():
        classes.setdefault(COLORS.get(state, OTHER), []).extend(names)
    for (name, color), members in classes.items():
        lines.append(f"    classDef {name} fill:{color},color:#000000")
        lines.append(f"    class {','.join(members)} {name}")
    return "\n".join(lines) + "\n"


def _mermaid_frame(frame: Frame, indent: str) -> Iterator[str]:
    for each in frame.inside:
        if isinstance(each, Frame):
            yield f"{indent}subgraph {each.name}[{mermaid_quoted(each.title)}]"
            yield from _mermaid_frame(each, indent + "    ")
            yield f"{indent}end"
        else:
            tree = each.tree
            state = "" if tree.state is None else f"<br/>{mermaid_escaped(tree.state)}"
            text = f'"{mermaid_escaped(_empty(tree))}{state}"'
            opening, closing = _SHAPES.get(tree.kind, ("[", "]"))
            yield f"{indent}{each.name}{opening}{text}{closing}"


_SHAPES = {MORE: ("(", ")"), JOIN: ("((", "))")}


def mermaid_quoted(text: str) -> str:
    return f'"{mermaid_escaped(text)}"'


def mermaid_escaped(text: str) -> str:
    """Between double quotes. Everything that Mermaid, Markdown or HTML may take for its own is a numbered entity."""
    return "".join(each if _is_harmless(each) else f"#{ord(_shown(each))};" for each in text) or "#32;"


def _is_harmless(character: str) -> bool:
    return (character.isalnum() and character.isprintable()) or character in " .,-_()/"


# -- DOT


def dot_text(tree: Tree) -> str:
    chart = Chart(tree)
    lines = [
        "digraph workflow {",
        '    graph [rankdir=TB, charset="UTF-8"];',
        '    node [shape=box, style="rounded,filled", fillcolor="#ffffff"];',
        *_dot_frame(chart.top, "    "),
    ]
    for arrow in chart.arrows:
        dashed = ", style=dashed" if arrow.text == "link_error" else ""
        look = f" [label={dot_quoted(arrow.text)}{dashed}]" if arrow.text else ""
        lines.append(f"    {arrow.start} -> {arrow.end}{look};")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_frame(frame: Frame, indent: str) -> Iterator[str]:
    for each in frame.inside:
        if isinstance(each, Frame):
            yield f"{indent}subgraph cluster_{each.name} {{"
            yield f"{indent}    label={dot_quoted(each.title)};"
            yield from _dot_frame(each, indent + "    ")
            yield f"{indent}}}"
        else:
            tree = each.tree
            text = _empty(tree) if tree.state is None else f"{_empty(tree)}\n{tree.state}"
            look = [f"label={dot_quoted(text)}"]
            if tree.id is not None:
                look.append(f"tooltip={dot_quoted(tree.id)}")
            if tree.state is not None:
                look.append(f'fillcolor="{COLORS.get(tree.state, OTHER)[1]}"')
            if tree.kind in (MORE, JOIN):
                look.append("shape=plaintext" if tree.kind == MORE else "shape=point")
            yield f"{indent}{each.name} [{', '.join(look)}];"


_DOT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "&": "&amp;"}


def dot_quoted(text: str) -> str:
    """A string of DOT: nothing in it ends it, is an escape or an entity."""
    return '"' + "".join(_DOT.get(each) or _shown(each) for each in text) + '"'


def _shown(character: str) -> str:
    """Itself, or the sign for something that cannot be shown: half a character, or a command to the terminal."""
    return character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
