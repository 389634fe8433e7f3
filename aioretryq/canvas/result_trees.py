"""What came of a workflow so far, from what is stored of its tasks: states, children and parents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioretryq import states
from aioretryq.canvas.trees import MORE, Tree, collapsed, consecutive
from aioretryq.protocol.signature import CHAIN, GROUP
from aioretryq.results.group import GroupResult
from aioretryq.results.result import AsyncResult, EagerResult
from aioretryq.workflows.record import Step, read_record, record_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.protocol.result import ResultDocument

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


class Recorded(Struct, frozen=True):
    """What its sender has kept of a workflow: names by id, and (number of members, their name) by a group's id."""

    names: dict[str, str] = {}
    many: dict[str, tuple[int, str | None]] = {}


NOT_RECORDED = Recorded()


async def tree_of_result(result: Result) -> Tree:
    """With all that is known to belong to it: what is before it, its members, and what was sent by any of them.

    Each task is in it once, where it is met first. Names are known of what was recorded when it was sent, and where
    results are stored with `result_extended`.
    """
    here = any(isinstance(each, EagerResult) for each in whole_line(result))
    found, recorded = Found(None if here else result.app), NOT_RECORDED
    await found.read(result)
    if not here:
        steps = read_record(await result.app.results.restore_group(record_key(result.id)))
        recorded = Recorded(recorded_result(steps or (), result.app)[1].names)
    return Shown(found.known, recorded).line(result, 0)


def recorded_result(steps: Sequence[Step], app: TaskQueue) -> tuple[Result | None, Recorded]:
    """The last of these steps, the others its parents; and what is known besides."""
    names: dict[str, str] = {}
    many: dict[str, tuple[int, str | None]] = {}

    def result(line: Sequence[Step]) -> Result | None:
        last: Result | None = None
        for step in line:
            if step.count is not None:
                many[step.id] = (step.count, step.task)
            elif step.task is not None:
                names[step.id] = step.task
            if step.count is None and step.members is None:
                last = AsyncResult(step.id, app, parent=last)
            else:
                members = [found for each in step.members or () if (found := result(each)) is not None]
                last = GroupResult(step.id, members, app, parent=last)
        return last

    return result(steps), Recorded(names, many)


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

    async def climb(self, task_id: str) -> str:
        """The first of those who sent it, as far as each says so, the sender of what it has sent, too: the last part
        of a header, as Celery has it, does not tell of the body."""
        seen = {task_id}
        (known,) = await self._look([AsyncResult(task_id, self.app)])
        while known.parent_id is not None and known.parent_id not in seen:
            seen.add(known.parent_id)
            (sender,) = await self._look([AsyncResult(known.parent_id, self.app)])
            if not any(leaf.id == task_id for child in sender.children for leaf in whole_line(child)):
                break
            task_id, known = known.parent_id, sender
        return task_id

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

    def __init__(self, known: Mapping[str, Known], recorded: Recorded = NOT_RECORDED) -> None:
        self._known = known
        self._recorded = recorded
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
        if node.id in self._recorded.many:
            count, name = self._recorded.many[node.id]
            members: Iterable[Tree] = [Tree(name or "", count=count)]
            return Tree("", node.id, kind=GROUP, children=tuple(members))
        if isinstance(node, GroupResult):
            members = self._all(node.results, depth)
            return Tree("", node.id, kind=GROUP, children=collapsed(members))
        known = self._known.get(node.id, NOTHING)
        name = known.name or self._recorded.names.get(node.id, "")
        return Tree(name, node.id, known.state, children=tuple(self._all(sent, depth)))

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
