"""Pictures of workflows: of what was composed, and of what came of it, as Mermaid and as Graphviz's DOT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aioretryq.drawing.charts import dot_text, mermaid_text
from aioretryq.drawing.result_trees import tree_of_result
from aioretryq.drawing.trees import MORE, Tree, collapsed, consecutive
from aioretryq.errors import ConfigError
from aioretryq.protocol.members import KEPT, Members
from aioretryq.protocol.signature import CHAIN, CHORD, GROUP, TASK, Node, read_signature, read_signatures

if TYPE_CHECKING:
    from aioretryq.canvas.signature import Signature
    from aioretryq.results.group import GroupResult
    from aioretryq.results.result import AsyncResult

__all__ = ["Tree", "dot", "draw", "draw_result", "mermaid", "tree_of", "tree_of_result"]

DEEPEST = 60
"""Levels that are drawn. Nobody can read more, and each costs stack."""


def draw(tree: Tree, kind: str = "mermaid") -> str:
    """As `mermaid` or `dot`. Raises ConfigError for any other kind."""
    check_kind(kind)
    return mermaid(tree) if kind == "mermaid" else dot(tree)


def check_kind(kind: str) -> None:
    if kind not in ("mermaid", "dot"):
        raise ConfigError(f"Workflows are drawn as 'mermaid' or 'dot', not as {kind!r}.")


async def draw_result(result: AsyncResult[Any] | GroupResult[Any], kind: str = "mermaid") -> str:
    """What came of it so far, with states. Raises ConfigError for a kind that there is not."""
    check_kind(kind)
    return draw(await tree_of_result(result), kind)


def mermaid(tree: Tree) -> str:
    """A flowchart, as Markdown of GitHub and many others shows it in a block of the language `mermaid`."""
    return mermaid_text(tree)


def dot(tree: Tree) -> str:
    """A graph for Graphviz: `dot -Tsvg`."""
    return dot_text(tree)


# -- what was composed


def tree_of(signature: Signature[Any] | Node | Mapping[str, Any]) -> Tree:
    """Of a signature, or the dictionary of one. Of a generator only the first are read: it would be gone."""
    if isinstance(signature, Node):
        node = signature
    else:
        found = getattr(signature, "node", None)
        node = found if isinstance(found, Node) else read_signature(dict(signature))
    return _tree(node, 0)


def _tree(node: Node, depth: int, role: str = "") -> Tree:
    if depth >= DEEPEST:
        return Tree("...", kind=MORE, role=role)
    if node.kind == TASK:
        return Tree(_name(node), node.task_id, children=_links(node, depth), role=role)
    if node.kind == CHORD and node.body is not None:
        header = Tree("", node.header.get("task_id"), kind=GROUP, children=_members(node.steps, depth))
        children: tuple[Tree, ...] = (header, _tree(node.body, depth + 1))
    elif node.kind == CHAIN:
        children = consecutive(_tree(step, depth + 1) for step in node.steps)
    else:
        children = _members(node.steps, depth)
    return Tree("", node.task_id, kind=node.kind, children=(*children, *_links(node, depth)), role=role)


def _name(node: Node) -> str:
    """Of a map what it calls for each."""
    mapped = node.kwargs.get("task") if node.subtask_type else None
    inner = mapped.get("task") if isinstance(mapped, Mapping) else None
    return f"{node.task}: {inner}" if inner else node.task


def _members(steps: tuple[Node, ...] | Members[Node], depth: int) -> tuple[Tree, ...]:
    if not isinstance(steps, Members):
        return collapsed(_tree(step, depth + 1) for step in steps)
    first = steps.first(KEPT)
    drawn = collapsed(_tree(step, depth + 1) for step in first)
    return drawn if len(first) < KEPT else (*drawn, Tree("more of a generator", kind=MORE))


def _links(node: Node, depth: int) -> tuple[Tree, ...]:
    return tuple(
        _tree(linked, depth + 1, role)
        for role in ("link", "link_error")
        for linked in read_signatures(node.options.get(role), role)
    )
