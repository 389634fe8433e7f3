"""What came of a workflow so far, from what is stored of its tasks: states, children and parents."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioretryq import states
from aioretryq.drawing.trees import MORE, Share, Tree, collapsed, consecutive
from aioretryq.protocol.signature import CHAIN, GROUP
from aioretryq.results.eager import EagerResult
from aioretryq.results.group import GroupResult
from aioretryq.results.recorded import results_of_steps, steps_of
from aioretryq.results.result import AsyncResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from aioretryq.app import TaskQueue
    from aioretryq.protocol.result import ResultDocument
    from aioretryq.workflows.record import Step

Result = AsyncResult[Any] | GroupResult[Any]

AT_ONCE = 1000
"""Results that are asked for in one round trip."""

DEEPEST = 60
"""Levels of groups and of tasks that send several: what is below is left out."""


class Known(Struct, frozen=True):
    """What is shown of a task's result; its value may be large."""

    state: str
    name: str | None = None
    parent_id: str | None = None
    children: tuple[Result, ...] = ()


NOTHING = Known(states.PENDING)


async def tree_of_result(result: Result) -> Tree:
    """With all that is known to belong to it: what is before it, its members, and what was sent by any of them.

    Each task is in it once, where it is met first. Names are known of what was recorded when it was sent, and where
    results are stored with `result_extended`.
    """
    if any(isinstance(each, EagerResult) for each in whole_line(result)):
        app, steps = None, []
    else:
        app, steps = result.app, await steps_of(result.app, result.id)
        if steps and isinstance(result, AsyncResult) and result.parent is None:
            result = results_of_steps(steps, result.app) or result
    found = Found(app)
    await found.read(result)
    return Shown(found.known, names_of_steps(steps)).line(result, 0)


def names_of_steps(steps: Iterable[Step]) -> dict[str, str]:
    """By the ids of their tasks."""
    names: dict[str, str] = {}
    waiting = list(steps)
    while waiting:
        step = waiting.pop()
        if step.task is not None:
            names.update(dict.fromkeys((step.id,) if step.ids is None else step.ids, step.task))
        waiting += [each for member in step.members or () for each in member]
    return names


class Found:
    """Results that belong together, read level by level. What is `final` has been read before."""

    def __init__(self, app: TaskQueue | None, final: Mapping[str, Known] | None = None) -> None:
        self._app = app
        self._final = final or {}
        self.known: dict[str, Known] = {}

    async def read(self, result: Result) -> None:
        """All that can be reached; each once, for a task that was retried by Celery lists itself."""
        level = [result]
        while level:
            new = {leaf.id: leaf for each in level for leaf in whole_line(each) if leaf.id not in self.known}
            level = []
            for known in await self._look(list(new.values())):
                level += known.children

    @property
    def app(self) -> TaskQueue:
        assert self._app is not None, "results that ran in place are their own store"
        return self._app

    async def _look(self, leaves: list[AsyncResult[Any]]) -> list[Known]:
        made = []
        for leaf in leaves:
            if isinstance(leaf, EagerResult):
                children = tuple(await leaf.children())
                self.known[leaf.id] = Known(await leaf.status(), leaf.request.task, None, children)
                made.append(self.known[leaf.id])
            elif leaf.id in self._final:
                self.known[leaf.id] = self._final[leaf.id]
                made.append(self.known[leaf.id])
        ids = [leaf.id for leaf in leaves if leaf.id not in self.known]
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            for task_id, document in zip(some, await self.app.results.get_many(some), strict=True):
                children = tuple(map(self.app.result_from_tuple, document.children or ()))
                self.known[task_id] = _known(document, children)
                made.append(self.known[task_id])
        return made


def _known(document: ResultDocument, children: tuple[Result, ...]) -> Known:
    return Known(document.status, document.name, document.parent_id, children)


def whole_line(result: Result) -> Iterator[AsyncResult[Any]]:
    """The tasks that it consists of, and of what is before it."""
    node: Result | None = result
    while node is not None:
        if isinstance(node, GroupResult):
            for member in node.results:
                yield from whole_line(member)
        else:
            yield node
        node = node.parent


class Shown:
    """Makes the tree; what is in it already is not shown again."""

    def __init__(self, known: Mapping[str, Known], names: Mapping[str, str]) -> None:
        self._known = known
        self._names = names
        self._drawn: set[str] = set()

    def line(self, result: Result, depth: int) -> Tree:
        """With what is before it, and behind it what it has sent, while that is one thing."""
        before: list[Result] = []
        node: Result | None = result
        while node is not None and node.id not in self._drawn:
            self._drawn.add(node.id)
            before.insert(0, node)
            node = node.parent
        steps = list(self._steps(before, depth))
        return steps[0] if len(steps) == 1 else Tree("", kind=CHAIN, children=consecutive(steps))

    def _steps(self, line: list[Result], depth: int) -> Iterator[Tree]:
        while line:
            last = line[-1]
            for node in line[:-1]:
                yield self._one(node, self._new(node), depth)
            new = self._new(last)
            if len(new) != 1:
                yield self._one(last, new, depth)
                return
            yield self._one(last, [], depth)
            line = [node for node in _line(new[0]) if node.id not in self._drawn]
            self._drawn.update(node.id for node in line)

    def _new(self, node: Result) -> list[Result]:
        if isinstance(node, GroupResult):
            return []
        return [each for each in self._known.get(node.id, NOTHING).children if each.id not in self._drawn]

    def _one(self, node: Result, sent: list[Result], depth: int) -> Tree:
        if isinstance(node, GroupResult):
            ended = Counter(map(self._ended, node.results))
            share = Share(len(node.results) - ended[None], ended[states.FAILURE], len(node.results))
            return Tree("", node.id, kind=GROUP, children=collapsed(self._all(node.results, depth)), share=share)
        known = self._known.get(node.id, NOTHING)
        name = known.name or self._names.get(node.id, "")
        return Tree(name, node.id, known.state, children=tuple(self._all(sent, depth)))

    def _ended(self, result: Result) -> str | None:
        """SUCCESS or FAILURE, once it is known. What follows a failure never runs, even if nobody ever says so."""
        if isinstance(result, GroupResult):
            members = set(map(self._ended, result.results))
            if None not in members:
                return states.FAILURE if states.FAILURE in members else states.SUCCESS
        elif (state := self._known.get(result.id, NOTHING).state) in states.FINAL:
            return states.SUCCESS if state == states.SUCCESS else states.FAILURE
        return states.FAILURE if result.parent is not None and self._has_failed(result.parent) else None

    def _has_failed(self, result: Result) -> bool:
        return any(self._known.get(leaf.id, NOTHING).state in states.PROPAGATED for leaf in whole_line(result))

    def _all(self, results: Iterable[Result], depth: int) -> Iterator[Tree]:
        for each in results:
            if depth >= DEEPEST:
                yield Tree("...", kind=MORE)
                return
            if each.id not in self._drawn:
                yield self.line(each, depth + 1)


def _line(result: Result) -> list[Result]:
    found: list[Result] = []
    node: Result | None = result
    while node is not None:
        found.append(node)
        node = node.parent
    return found[::-1]
