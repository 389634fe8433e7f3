"""The tasks of a set of results, in their order, and what came of them."""

from __future__ import annotations

import inspect
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

from aioretryq.protocol.result import value_of
from aioretryq.results.many import ManyResults
from aioretryq.results.result import AsyncResult
from aioretryq.results.waiting import final, stored

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.protocol.result import ResultDocument


class Ended(NamedTuple):
    """A task, by its place among all, and what came of it."""

    place: int
    status: str
    value: Any
    document: ResultDocument | None


class Tasks:
    """The tasks of a set, those of groups in it among them, in their order.

    `owners`: of which member each is. `ids` and `places` are those of the tasks whose documents have to be asked for;
    `known` is what came of all others.
    """

    def __init__(self, members: Sequence[Any], *, waiting: bool) -> None:
        self.members = members
        self.nested = False
        self.known: list[Ended] = []
        self.results: Sequence[AsyncResult[Any]]
        self.owners: Sequence[int]
        self.places: Sequence[int]
        self.ids: Sequence[str]
        ids = members.ids if isinstance(members, ManyResults) else None
        if ids is not None:
            self.results, self.ids = members, ids
            self.owners = self.places = range(len(members))
        else:
            self._unfold(waiting)

    def _unfold(self, waiting: bool) -> None:
        results: list[AsyncResult[Any]] = []
        owners: list[int] = []
        places: list[int] = []
        ids: list[str] = []
        for number, member in enumerate(self.members):
            self.nested = self.nested or not isinstance(member, AsyncResult)
            for leaf in member._leaves():
                at_hand = None if leaf.ignored and not waiting else leaf._at_hand()
                if at_hand is None:
                    places.append(len(results))
                    ids.append(leaf.id)
                else:
                    status, value = at_hand
                    self.known.append(Ended(len(results), status, value, None))
                results.append(leaf)
                owners.append(number)
        self.results, self.owners, self.places, self.ids = results, owners, places, ids

    async def ended(self, app: TaskQueue) -> AsyncGenerator[list[Ended], None]:
        """All, as they are done."""
        if self.known:
            yield self.known
        async with aclosing(final(app, self.ids)) as coming:
            async for documents in coming:
                yield [self._ended(place, document) for place, document in documents]

    async def now(self, app: TaskQueue) -> AsyncGenerator[list[Ended], None]:
        """All, in the state in which they are."""
        if self.known:
            yield self.known
        async with aclosing(stored(app, self.ids)) as found:
            async for documents in found:
                yield [self._ended(place, document) for place, document in documents]

    def _ended(self, place: int, document: ResultDocument) -> Ended:
        return Ended(self.places[place], document.status, value_of(document), document)

    def shaped(self, values: list[Any]) -> list[Any]:
        """As the members are: a list for each that is a group."""
        return _shaped(self.members, iter(values)) if self.nested else values


def _shaped(members: Iterable[Any], values: Iterator[Any]) -> list[Any]:
    return [
        next(values) if isinstance(member, AsyncResult) else _shaped(member.results, values) for member in members
    ]


class Taken:
    """The values so far, or who is told of them."""

    def __init__(self, tasks: Tasks, callback: Callable[[str, Any], object] | None) -> None:
        self._tasks = tasks
        self._callback = callback
        self._values: list[Any] = [] if callback is not None else [None] * len(tasks.results)

    async def take(self, ended: list[Ended]) -> None:
        for place, _, value, _ in ended:
            if self._callback is None:
                self._values[place] = value
                continue
            answer = self._callback(self._tasks.results[place].id, value)
            if inspect.isawaitable(answer):
                await answer

    def all(self) -> list[Any]:
        return self._values if self._callback is not None else self._tasks.shaped(self._values)
