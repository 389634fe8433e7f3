"""Results of groups: many tasks as one, with an id under which the list of them can be stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

from aioretryq.calling import is_text
from aioretryq.errors import ProtocolError
from aioretryq.protocol.saferepr import saferepr
from aioretryq.registration import current_queue
from aioretryq.results.many import ManyResults
from aioretryq.results.result import AsyncResult
from aioretryq.results.sets import ResultSet
from aioretryq.results.tree import Tree
from aioretryq.results.waiting import needs_results

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aioretryq.app import TaskQueue

R = TypeVar("R")

LONGEST = 10_000
"""Results before one, each before the other, that are read; and groups in groups as far as Python goes."""


class GroupResult(Tree, ResultSet[R]):
    """The results of a group, in its order. A member may be a group, too. Costs nothing until it is asked for."""

    def __init__(
        self,
        id: str,
        results: Iterable[AsyncResult[R] | GroupResult[Any]] | None = None,
        app: TaskQueue | None = None,
        *,
        parent: AsyncResult[Any] | GroupResult[Any] | None = None,
    ) -> None:
        if results is None:
            raise TypeError(
                f"GroupResult({id!r}) needs the list of its results; an empty one has no members. One that was saved "
                f"is found by `await GroupResult.restore({id!r}, queue)`, that of a workflow that was sent by "
                f"`await queue.workflow({id!r})`."
            )
        super().__init__(results, app)
        self.id = id
        """Of the group: under which it is saved. Also what `str(result)` is."""
        self.parent = parent
        """The result of what is before it in a workflow, if that is known."""
        self.is_sent = False
        """Its members are messages that carry its id; else it may be somebody's own list."""

    def __repr__(self) -> str:
        return f"<GroupResult {self.id} of {len(self.results)}>"

    def __str__(self) -> str:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupResult) and other.id == self.id and other.results == self.results

    def __hash__(self) -> int:
        return hash(self.id)

    def _name(self) -> str:
        return f"Group {self.id}"

    async def children(self) -> Sequence[AsyncResult[R] | GroupResult[Any]]:
        """The members."""
        return self.results

    async def _children_if_done(self) -> Sequence[Any] | None:
        return self.results if await self.ready() else None

    # -- storing

    async def save(self) -> Self:
        """Store the list of results under the group's id, as long as a result is kept; see `restore`. Raises
        ConfigError where results are not kept."""
        needs_results(self.app)
        await self.app.results.save_group(self.id, self.as_tuple())
        return self

    @classmethod
    async def restore(cls, id: str, app: TaskQueue | None = None) -> GroupResult[Any] | None:
        """The group that was saved under that id, by us or by Celery; None where there is none (any more)."""
        app = current_queue() if app is None else app
        tree = await app.results.restore_group(id)
        if tree is None:
            return None
        found = result_from_tuple(tree, app)
        if not isinstance(found, GroupResult):
            raise ProtocolError(f"What is stored of group {id!r} is no group: {saferepr(tree, 200)}.")
        return found

    async def delete(self) -> None:
        """Delete the stored list; the results stay."""
        await self.app.results.delete_group(self.id)

    def _written_members(self) -> list[Any]:
        if isinstance(self.results, ManyResults) and self.results.ids is not None:
            return [((task_id, None), None) for task_id in self.results.ids]
        return [member.as_tuple() for member in self.results]

    def _group_of_members(self, big: int) -> str | None:
        return self.id if self.is_sent and len(self.results) > big else None


class Groups:
    """`queue.GroupResult`: makes, and finds, groups of this queue."""

    def __init__(self, app: TaskQueue) -> None:
        self._app = app

    def __repr__(self) -> str:
        return f"<GroupResult of {self._app!r}>"

    def __call__(
        self, id: str, results: Iterable[AsyncResult[Any] | GroupResult[Any]] | None = None
    ) -> GroupResult[Any]:
        """Results as one, in this order, with an id under which they can be saved."""
        return GroupResult(id, results, self._app)

    async def restore(self, id: str) -> GroupResult[Any] | None:
        """The group that was saved under that id, by us or by Celery; None where there is none (any more)."""
        return await GroupResult.restore(id, self._app)


def result_from_tuple(data: Any, app: TaskQueue) -> AsyncResult[Any] | GroupResult[Any]:
    """What `as_tuple`, here or in Celery, has described. Raises ProtocolError for anything else."""
    try:
        return _from_tuple(data, app)
    except RecursionError as error:
        raise ProtocolError("A tree of results is nested too deeply.") from error


def _from_tuple(data: Any, app: TaskQueue) -> AsyncResult[Any] | GroupResult[Any]:
    found: AsyncResult[Any] | GroupResult[Any] | None = None
    for result_id, members in reversed(_line(data)):
        if members is None:
            found = AsyncResult(result_id, app, parent=found)
        else:
            found = GroupResult(result_id, [_from_tuple(member, app) for member in members], app, parent=found)
    assert found is not None
    return found


def _line(data: Any) -> list[tuple[str, Sequence[Any] | None]]:
    """Id and members of a result, of its parent, of the parent of that, and so on."""
    found: list[tuple[str, Sequence[Any] | None]] = []
    while data or not found:
        if len(found) == LONGEST:
            raise ProtocolError("A tree of results is nested too deeply.")
        if not isinstance(data, list | tuple) or len(data) != 2:
            raise ProtocolError(f"A result is written as [[id, parent], members], not {saferepr(data, 200)}.")
        head, members = data
        result_id, data = head if isinstance(head, list | tuple) and len(head) == 2 else (head, None)
        if not isinstance(result_id, str) or not is_text(result_id):
            raise ProtocolError(f"The id of a result is a text, not {saferepr(result_id, 200)}.")
        if members is not None and not isinstance(members, list | tuple):
            raise ProtocolError(f"The members of a group are a list, not {saferepr(members, 200)}.")
        found.append((result_id, members))
    return found
