"""How results belong together: what is before one in a chain, the tasks of a group, and what came of a task."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from aioretryq.errors import IncompleteStream
from aioretryq.ids import Ids
from aioretryq.lazy import Lazy
from aioretryq.protocol.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from aioretryq.drawing import pictures
    from aioretryq.results.group import GroupResult
    from aioretryq.results.result import AsyncResult

    AnyResult: TypeAlias = "AsyncResult[Any] | GroupResult[Any]"
else:
    pictures = Lazy("aioretryq.drawing.pictures")


class Tree:
    """What results of tasks and of groups have in common."""

    id: str
    parent: AnyResult | None

    async def draw(self: Any, kind: str = "mermaid") -> str:
        """A picture of what came of it so far, with all that belongs to it, as text for Mermaid, or with `kind="dot"`
        for Graphviz."""
        found: str = await pictures.draw_result(self, kind)
        return found

    async def iterdeps(self: Any, intermediate: bool = False) -> AsyncIterator[tuple[AnyResult | None, AnyResult]]:
        """(Who has sent it, result) for this one and all that came of it, each once.

        Raises IncompleteStream at a task that is not done; with `intermediate=True` it is taken for childless.
        """
        waiting: deque[tuple[AnyResult | None, AnyResult]] = deque([(None, self)])
        seen = {self.id}
        while waiting:
            sender, node = waiting.popleft()
            yield sender, node
            children = await node._children_if_done()
            if children is not None:
                new = [child for child in children if child.id not in seen]
                seen.update(child.id for child in new)
                waiting.extend((node, child) for child in new)
            elif not intermediate:
                raise IncompleteStream(f"{node.id} is not done: what it will send is not known yet.")

    async def collect(self, intermediate: bool = False, **options: Any) -> AsyncIterator[tuple[AnyResult, Any]]:
        """(Result, value) for this one and all that came of it, waiting for each; options are those of `get`."""
        async for _, node in self.iterdeps(intermediate):
            yield node, await node.get(**options)

    async def get_leaf(self) -> Any:
        """The value of the last task that came of this one."""
        value = None
        async for _, each in self.collect():
            value = each
        return value

    async def build_graph(self, intermediate: bool = False) -> dict[AnyResult, list[AnyResult]]:
        """Who has sent what: for each result of `iterdeps` those that it has sent."""
        graph: dict[AnyResult, list[AnyResult]] = {}
        async for sender, node in self.iterdeps(intermediate):
            graph[node] = []
            if sender is not None:
                graph[sender].append(node)
        return graph

    def as_tuple(self: Any) -> tuple[tuple[str, Any], list[Any] | None]:
        """What Celery calls this result where it is stored; `TaskQueue.result_from_tuple` reads it."""
        written: Any = None
        for node in [*line_before(self), self]:
            written = (node.id, written), node._written_members()
        found: tuple[tuple[str, Any], list[Any] | None] = written
        return found


def line_before(result: AnyResult) -> list[AnyResult]:
    """Its parent, the parent of that, and so on; the first one first."""
    found = []
    node = result.parent
    while node is not None:
        found.append(node)
        node = node.parent
    return found[::-1]


def ancestors(result: AnyResult) -> list[AsyncResult[Any]]:
    """The tasks before it, the first one first."""
    return [leaf for node in line_before(result) for leaf in leaves(node)]


def leaves(result: AnyResult) -> list[AsyncResult[Any]]:
    """The tasks of a group, and of the groups in it; or the one that it is."""
    return list(result._leaves())


def ids_before(results: Iterable[Any]) -> Sequence[str]:
    """Of the tasks before any of them, those of the first result first. May be very many."""
    found = Ids()
    seen: set[int] = set()
    for result in results:
        line = []
        node = result.parent
        while node is not None and id(node) not in seen:
            seen.add(id(node))
            line.append(node)
            node = node.parent
        for node in reversed(line):
            found.extend(node._leaf_ids())
    return found


def checked_results(results: Iterable[Any]) -> list[Any]:
    """A list of them. Raises TypeError for what is no result."""
    found = list(results)
    for each in found:
        if not isinstance(each, Tree):
            raise TypeError(_NO_RESULT.format(saferepr(each, 100)))
    return found


_NO_RESULT = (
    "A list of results is wanted, and {} is none. Await what sends a task, `[await add.delay(1), ...]`, and make a "
    "result of an id by `queue.AsyncResult(id)`."
)
