"""Results of several tasks, waited for and asked together."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

import anyio
from msgspec.structs import asdict

from aioretryq import states
from aioretryq.errors import ResultTimeout
from aioretryq.protocol.result import value_of
from aioretryq.registration import current_queue
from aioretryq.results.many import ManyResults
from aioretryq.results.result import Update
from aioretryq.results.stopping import Stoppable
from aioretryq.results.tasks import Taken, Tasks
from aioretryq.results.tree import checked_results, ids_before
from aioretryq.results.waiting import PROMPT, final, needs_results, raise_failure, unless_failed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.results.group import GroupResult
    from aioretryq.results.result import AsyncResult

    Callback = Callable[[str, Any], object]

R = TypeVar("R")


class ResultSet(Stoppable, Generic[R]):
    """Results that are waited for, and asked, together, in the order in which they were added. Costs nothing until it
    is asked for something.

    Of very many tasks only some are listened to at a time, and a thousand are fetched at once: memory and messages do
    not grow with them, but for the ids, and the values that are returned.
    """

    def __init__(
        self, results: Iterable[AsyncResult[R] | GroupResult[Any]] = (), app: TaskQueue | None = None
    ) -> None:
        self.results: Sequence[AsyncResult[R] | GroupResult[Any]]
        self.results = results if isinstance(results, ManyResults) else checked_results(results)
        """The members, in their order."""
        self._app = app
        self._seen: set[AsyncResult[R] | GroupResult[Any]] = set()  # of all, if it is as long

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.results)}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResultSet) and type(other) is type(self) and other.results == self.results

    __hash__ = object.__hash__

    def __len__(self) -> int:
        return len(self.results)

    def __bool__(self) -> bool:
        return True  # also where it has no members

    def __iter__(self) -> Iterator[AsyncResult[R] | GroupResult[Any]]:
        return iter(self.results)

    def __getitem__(self, index: int) -> AsyncResult[R] | GroupResult[Any]:
        return self.results[index]

    def __await__(self) -> Generator[Any, None, list[R]]:
        return self.get().__await__()

    @property
    def app(self) -> TaskQueue:
        """The queue that it was made with, else that of the first result, else the current one."""
        if self._app is None:
            self._app = self.results[0].app if self.results else current_queue()
        return self._app

    @property
    def backend(self) -> Any:
        """The result backend in use."""
        return self.app.results.backend

    @property
    def supports_native_join(self) -> bool:
        """Whether many are fetched at once: always."""
        return True

    # -- members

    def add(self, result: AsyncResult[R] | GroupResult[Any]) -> None:
        """Nothing happens if it is there already. Who waits already does not wait for it."""
        self.update([result])

    def remove(self, result: AsyncResult[R] | GroupResult[Any] | str) -> None:
        """A result, or the one with that id; KeyError if it is not there."""
        listed = self._listed()
        for number, each in enumerate(listed):
            if result in (each, each.id):
                self._seen.discard(each)
                del listed[number]
                return
        raise KeyError(result)

    def discard(self, result: AsyncResult[R] | GroupResult[Any] | str) -> None:
        """As `remove`; nothing happens if it is not there."""
        with suppress(KeyError):
            self.remove(result)

    def update(self, results: Iterable[AsyncResult[R] | GroupResult[Any]]) -> None:
        """Add all of them that are not there yet."""
        listed = self._listed()
        if len(self._seen) != len(listed):
            self._seen = set(listed)
        for each in checked_results(results):
            if each not in self._seen:
                self._seen.add(each)
                listed.append(each)

    def clear(self) -> None:
        """Take out all."""
        self.results = []

    def _listed(self) -> list[AsyncResult[R] | GroupResult[Any]]:
        if not isinstance(self.results, list):
            self.results = list(self.results)
        return self.results

    # -- waiting

    @overload
    async def get(
        self,
        timeout: float | None = None,
        *,
        propagate: Literal[True] = True,
        follow_parents: bool = True,
        callback: Callback | None = None,
    ) -> list[R]: ...
    @overload
    async def get(
        self,
        timeout: float | None = None,
        *,
        propagate: bool,
        follow_parents: bool = True,
        callback: Callback | None = None,
    ) -> list[R | BaseException]: ...
    async def get(
        self,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        follow_parents: bool = True,
        callback: Callback | None = None,
    ) -> list[Any]:
        """Wait for all tasks and return their values in the order of the set; see `AsyncResult.get`.

        Raises the exception of the task that fails first, while others may still run. With `propagate=False` their
        exceptions are in the list.

        With a `callback` nothing is kept: it is called, and awaited if it is a coroutine, with the id and value of
        each task as they are done, and the list is empty.
        """
        tasks = Tasks(self.results, waiting=True)
        follow = propagate and follow_parents
        parents = ids_before([self, *self._following_others()]) if follow else ()
        if timeout is not None and timeout <= 0:
            return await self._at_once(tasks, parents, propagate, callback)
        with anyio.move_on_after(timeout):
            if len(parents) <= PROMPT:
                await raise_failure(self.app, parents)
            return await unless_failed(self.app, parents, self._values(tasks, propagate, follow, callback))
        raise self._too_late(timeout)

    async def join(
        self,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        callback: Callback | None = None,
    ) -> list[Any]:
        """Celery's other name for `get`."""
        return await self.get(timeout, propagate=propagate, callback=callback)

    join_native = join
    """Another one."""

    async def _at_once(
        self, tasks: Tasks, parents: Sequence[str], propagate: bool, callback: Callback | None
    ) -> list[Any]:
        await raise_failure(self.app, parents)
        taken = Taken(tasks, callback)
        async with aclosing(tasks.now(self.app)) as found:
            async for ended in found:
                for each in ended:
                    if each.status not in states.FINAL:
                        raise self._too_late(0)
                    if propagate and each.status in states.PROPAGATED:
                        raise each.value
                await taken.take(ended)
        return taken.all()

    async def _values(self, tasks: Tasks, propagate: bool, follow: bool, callback: Callback | None) -> list[Any]:
        taken = Taken(tasks, callback)
        async with aclosing(tasks.ended(self.app)) as coming:
            async for ended in coming:
                for each in ended if propagate else ():
                    if each.status in states.PROPAGATED:
                        if follow:
                            await raise_failure(self.app, ids_before([tasks.results[each.place], self]))
                        raise each.value
                await taken.take(ended)
        return taken.all()

    def _following_others(self) -> Iterator[Any]:
        """Those of the tasks, and groups in it, that come after others."""
        if isinstance(self.results, ManyResults) and self.results.ids is not None:
            return
        for member in self.results:
            if member.parent is not None:
                yield member
            yield from member._following_others()

    def _group_of_members(self, big: int) -> str | None:
        """A group whose members these are all, if there are more than `big`."""
        return None

    def _too_late(self, timeout: float | None) -> ResultTimeout:
        return ResultTimeout(f"{self._name()} was not done within {timeout} s; it goes on all the same.")

    def _name(self) -> str:
        return f"A set of {len(self.results)} results"

    parent: AsyncResult[Any] | GroupResult[Any] | None = None

    async def finished(self) -> None:
        """Wait until all tasks are done, whatever came of them."""
        async with aclosing(Tasks(self.results, waiting=True).ended(self.app)) as coming:
            async for _ in coming:
                pass

    async def as_completed(self) -> AsyncGenerator[AsyncResult[R] | GroupResult[Any], None]:
        """The members as they are done, whatever came of them; ask each for its value, which costs nothing then."""
        tasks = Tasks(self.results, waiting=True)
        left: dict[int, int] = {}
        if tasks.nested:
            for owner in tasks.owners:
                left[owner] = left.get(owner, 0) + 1
            for number, member in enumerate(self.results):
                if number not in left:
                    yield member
        async with aclosing(tasks.ended(self.app)) as coming:
            async for ended in coming:
                for each in ended:
                    result, owner = tasks.results[each.place], tasks.owners[each.place]
                    if each.document is not None:
                        result._know(each.document)
                    if not tasks.nested:
                        yield result
                        continue
                    left[owner] -= 1
                    if not left[owner]:
                        yield self.results[owner]

    async def progress(self) -> AsyncIterator[tuple[int, int]]:
        """(How many tasks are done, of how many), as it changes; ends when all are. Those in groups are counted.

        Raises ConfigError where results are not kept.
        """
        needs_results(self.app)
        tasks = Tasks(self.results, waiting=True)
        done, total = 0, len(tasks.results)
        yield done, total
        async with aclosing(tasks.ended(self.app)) as coming:
            async for ended in coming:
                done += len(ended)
                yield done, total

    async def iterate(self, timeout: float | None = None, *, propagate: bool = True) -> AsyncIterator[R]:
        """The values as they come, not in the order of the set; ResultTimeout where one is not there in time."""
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        async with aclosing(self.as_completed()) as coming:
            while True:
                result = None
                with anyio.move_on_after(None if until is None else until - loop.time()) as limit:
                    result = await anext(coming, None)
                if limit.cancelled_caught:
                    raise self._too_late(timeout)
                if result is None:
                    return
                yield cast("R", await result.get(propagate=propagate))

    async def iter_native(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """(Id, all that is stored) of each task as they are done; in `result` is the value, or the exception."""
        tasks = Tasks(self.results, waiting=True)
        async with aclosing(tasks.ended(self.app)) as coming:
            async for ended in coming:
                for place, status, value, document in ended:
                    task_id = tasks.results[place].id
                    meta = {} if document is None else asdict(document)
                    yield task_id, {**meta, "task_id": task_id, "status": status, "result": value}

    async def updates(self) -> AsyncIterator[tuple[AsyncResult[R], Update]]:
        """(Result, state) of the tasks as they change; see `AsyncResult.updates`. Of very many, intermediate states
        are seen of some only."""
        tasks = Tasks(self.results, waiting=True)
        for place, status, value, _ in tasks.known:
            yield tasks.results[place], Update(status, value)
        async with aclosing(final(self.app, tasks.ids, every=True)) as coming:
            async for documents in coming:
                for place, document in documents:
                    yield tasks.results[tasks.places[place]], Update(document.status, value_of(document))

    # -- asking

    async def _states(self) -> AsyncGenerator[tuple[int, str], None]:
        """(Member, state) of all tasks."""
        tasks = Tasks(self.results, waiting=False)
        async with aclosing(tasks.now(self.app)) as found:
            async for ended in found:
                for each in ended:
                    yield tasks.owners[each.place], each.status

    async def _all(self, wanted: frozenset[str]) -> bool:
        async with aclosing(self._states()) as found:
            async for _, status in found:
                if status not in wanted:
                    return False
        return True

    async def ready(self) -> bool:
        """Whether all tasks are done."""
        return await self._all(states.FINAL)

    async def waiting(self) -> bool:
        """Whether a task is not done."""
        return not await self.ready()

    async def successful(self) -> bool:
        """Whether all tasks have succeeded."""
        return await self._all(frozenset({states.SUCCESS}))

    async def failed(self) -> bool:
        """Whether a task has failed."""
        async with aclosing(self._states()) as found:
            async for _, status in found:
                if status == states.FAILURE:
                    return True
        return False

    async def completed_count(self) -> int:
        """How many members have succeeded: that is what Celery counts. See `progress` for news of it."""
        lacking = set()
        async with aclosing(self._states()) as found:
            async for owner, status in found:
                if status != states.SUCCESS:
                    lacking.add(owner)
        return len(self.results) - len(lacking)

    async def maybe_throw(self, callback: Callback | None = None, propagate: bool = True) -> None:
        """Raises the exception of the first task that has failed by now; `callback` gets id and value of each."""
        tasks = Tasks(self.results, waiting=False)
        async with aclosing(tasks.now(self.app)) as found:
            async for ended in found:
                for each in ended:
                    if propagate and each.status in states.PROPAGATED:
                        raise each.value
                    if callback is not None:
                        callback(tasks.results[each.place].id, each.value)

    throw = maybe_throw

    # -- forgetting

    async def forget(self) -> None:
        """Delete the results of all tasks, and of those before them."""
        for ids in (self._leaf_ids(), ids_before(self._following_others())):
            listed = list(ids)
            for start in range(0, len(listed), 1000):
                await self.app.results.forget(listed[start : start + 1000])

    def as_list(self) -> list[str]:
        """The ids of all tasks."""
        return [leaf.id for leaf in self._leaves()]

    def _leaves(self) -> Iterable[AsyncResult[Any]]:
        return (leaf for member in self.results for leaf in member._leaves())

    def _leaf_ids(self) -> Iterable[str]:
        ids = self.results.ids if isinstance(self.results, ManyResults) else None
        return ids if ids is not None else (each for member in self.results for each in member._leaf_ids())
