"""Results of groups: many tasks as one, with an id under which the list of them can be stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import anyio

from aioretryq import states
from aioretryq.calling import is_text
from aioretryq.errors import ProtocolError, ResultTimeout
from aioretryq.protocol.saferepr import saferepr
from aioretryq.result import AsyncResult, ancestors, cancel, leaves, raise_failure, unless_failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator, Sequence

    from aioretryq.app import TaskQueue


class GroupResult:
    """The results of a group, in its order. A member may be a group, too. Costs nothing until it is asked for."""

    def __init__(
        self,
        group_id: str,
        results: Sequence[AsyncResult[Any] | GroupResult],
        app: TaskQueue,
        *,
        parent: AsyncResult[Any] | GroupResult | None = None,
    ) -> None:
        self.id = group_id
        self.results = list(results)
        self.app = app
        self.parent = parent

    def __repr__(self) -> str:
        return f"<GroupResult {self.id} of {len(self.results)}>"

    def __str__(self) -> str:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupResult) and (other.id, other.results) == (self.id, self.results)

    def __hash__(self) -> int:
        return hash(self.id)

    def __len__(self) -> int:
        return len(self.results)

    def __bool__(self) -> bool:
        return True  # also where it has no members

    def __iter__(self) -> Iterator[AsyncResult[Any] | GroupResult]:
        return iter(self.results)

    def __getitem__(self, index: int) -> AsyncResult[Any] | GroupResult:
        return self.results[index]

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self.get().__await__()

    # -- waiting

    async def get(
        self, timeout: float | None = None, *, propagate: bool = True, follow_parents: bool = True
    ) -> list[Any]:
        """Wait for all tasks and return their values in the order of the group; see `AsyncResult.get`.

        Raises the exception of the task that fails first, while others may still run. With `propagate=False` their
        exceptions are in the list.
        """
        options = {"propagate": propagate, "follow_parents": follow_parents}
        parents = ancestors(self) if propagate and follow_parents else []
        if timeout is not None and timeout <= 0:
            await raise_failure(parents)
            return [await member.get(timeout=0, **options) for member in self.results]
        with anyio.move_on_after(timeout):
            await raise_failure(parents)
            values = self._values(options)
            return await (unless_failed(parents, values) if parents else values)
        raise ResultTimeout(f"Group {self.id} was not done within {timeout} s; it goes on all the same.")

    async def join(self, timeout: float | None = None, *, propagate: bool = True) -> list[Any]:
        """Celery's other name for `get`."""
        return await self.get(timeout, propagate=propagate)

    async def _values(self, options: dict[str, Any]) -> list[Any]:
        waiting = [asyncio.ensure_future(member.get(**options)) for member in self.results]
        if not waiting:
            return []
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
            failed = [each for each in done if each.exception() is not None]
            return [each.result() for each in failed or waiting]
        finally:
            await cancel(waiting)

    async def finished(self) -> None:
        """Wait until all tasks are done, whatever came of them."""
        async for _ in self.as_completed():
            pass

    async def as_completed(self) -> AsyncIterator[AsyncResult[Any] | GroupResult]:
        """The members as they are done, whatever came of them; ask each for its value."""
        done: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        waiting: dict[asyncio.Future[None], AsyncResult[Any] | GroupResult]
        waiting = {asyncio.ensure_future(member.finished()): member for member in self.results}
        for each in waiting:
            each.add_done_callback(done.put_nowait)
        try:
            for _ in self.results:
                ended = await done.get()
                ended.result()
                yield waiting[ended]
        finally:
            await cancel(list(waiting))

    # -- asking

    async def children(self) -> list[AsyncResult[Any] | GroupResult]:
        """The members."""
        return self.results

    async def _statuses(self) -> dict[str, str]:
        """By task id, of all tasks, in one round trip."""
        ids = list(dict.fromkeys(leaf.id for leaf in leaves(self)))
        documents = await self.app.results.get_many(ids)
        return {task_id: document.status for task_id, document in zip(ids, documents, strict=True)}

    async def ready(self) -> bool:
        """Whether all tasks are done."""
        return states.FINAL.issuperset((await self._statuses()).values())

    async def waiting(self) -> bool:
        """Whether a task is not done."""
        return not await self.ready()

    async def successful(self) -> bool:
        """Whether all tasks have succeeded."""
        return set((await self._statuses()).values()) <= {states.SUCCESS}

    async def failed(self) -> bool:
        """Whether a task has failed."""
        return states.FAILURE in (await self._statuses()).values()

    async def completed_count(self) -> int:
        """How many members have succeeded: that is what Celery counts."""
        statuses = await self._statuses()
        return sum(all(statuses[leaf.id] == states.SUCCESS for leaf in leaves(member)) for member in self.results)

    # -- storing

    async def save(self) -> Self:
        """Store the list of results under the group's id, as long as a result is kept; see `restore`."""
        await self.app.results.save_group(self.id, self.as_tuple())
        return self

    @classmethod
    async def restore(cls, group_id: str, app: TaskQueue) -> GroupResult | None:
        """The group that was saved under that id, by us or by Celery; None where there is none (any more)."""
        tree = await app.results.restore_group(group_id)
        if tree is None:
            return None
        found = result_from_tuple(tree, app)
        if not isinstance(found, GroupResult):
            raise ProtocolError(f"What is stored of group {group_id!r} is no group: {saferepr(tree, 200)}.")
        return found

    async def delete(self) -> None:
        """Delete the stored list; the results stay."""
        await self.app.results.delete_group(self.id)

    async def forget(self) -> None:
        """Delete the results of all tasks, and of those before them; the stored list stays."""
        results = [each for leaf in leaves(self) for each in (leaf, *ancestors(leaf))]
        await self.app.results.forget(list(dict.fromkeys(result.id for result in results)))

    async def revoke(self, *, terminate: bool = False) -> None:
        """None of the tasks is to run; see `AsyncResult.revoke`."""
        for leaf in leaves(self):
            await leaf.revoke(terminate=terminate)

    def as_tuple(self) -> tuple[tuple[str, Any], list[Any]]:
        """What Celery calls this group where it is stored; `TaskQueue.result_from_tuple` reads it."""
        parent = self.parent.as_tuple() if self.parent else None
        return (self.id, parent), [member.as_tuple() for member in self.results]

    def as_list(self) -> list[str]:
        """The ids of all tasks."""
        return [leaf.id for leaf in leaves(self)]


def result_from_tuple(data: Any, app: TaskQueue) -> AsyncResult[Any] | GroupResult:
    """What `as_tuple`, here or in Celery, has described. Raises ProtocolError for anything else."""
    try:
        return _from_tuple(data, app)
    except RecursionError as error:
        raise ProtocolError("A tree of results is nested too deeply.") from error


def _from_tuple(data: Any, app: TaskQueue) -> AsyncResult[Any] | GroupResult:
    if not isinstance(data, list | tuple) or len(data) != 2:
        raise ProtocolError(f"A result is written as [[id, parent], members], not {saferepr(data, 200)}.")
    head, members = data
    result_id, parent_data = head if isinstance(head, list | tuple) and len(head) == 2 else (head, None)
    if not isinstance(result_id, str) or not is_text(result_id):
        raise ProtocolError(f"The id of a result is a text, not {saferepr(result_id, 200)}.")
    parent = _from_tuple(parent_data, app) if parent_data else None
    if members is None:
        return AsyncResult(result_id, app, parent=parent)
    if not isinstance(members, list | tuple):
        raise ProtocolError(f"The members of a group are a list, not {saferepr(members, 200)}.")
    return GroupResult(result_id, [_from_tuple(member, app) for member in members], app, parent=parent)
