"""The results of very many tasks, as a sequence that takes next to no memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from aioretryq.ids import Ids
from aioretryq.results.result import AsyncResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aioretryq.app import TaskQueue
    from aioretryq.results.group import GroupResult

R = TypeVar("R")


class ManyResults(Sequence[AsyncResult[R]], Generic[R]):
    """The results of many calls, in their order. Takes 16 bytes for each; made an AsyncResult when asked for.

    Where it is a group's, some may be results of other kinds, and have parents: these are kept as they are.
    """

    def __init__(self, queue: TaskQueue, ids: Iterable[str] = ()) -> None:
        self._queue = queue
        self._ids = ids if isinstance(ids, Ids) else Ids(ids)
        self._ignored = False
        self._others: dict[int, AsyncResult[Any] | GroupResult[Any]] = {}

    def __repr__(self) -> str:
        return f"<results of {len(self)} tasks>"

    def __eq__(self, other: object) -> bool:
        """As lists are, also with a list."""
        if isinstance(other, ManyResults):
            return (other._ids, other._others) == (self._ids, self._others)
        return isinstance(other, list) and list(self) == other

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> AsyncResult[R]: ...
    @overload
    def __getitem__(self, index: slice) -> list[AsyncResult[R]]: ...
    def __getitem__(self, index: int | slice) -> AsyncResult[R] | list[AsyncResult[R]]:
        numbers = range(len(self))[index]
        if isinstance(numbers, int):
            return self._result(numbers, self._ids[numbers])
        return [self._result(number, self._ids[number]) for number in numbers]

    def __iter__(self) -> Iterator[AsyncResult[R]]:
        for number, task_id in enumerate(self._ids):  # more may be added meanwhile
            yield self._result(number, task_id)

    def _result(self, number: int, task_id: str) -> AsyncResult[R]:
        if number in self._others:
            return cast("AsyncResult[R]", self._others[number])
        result: AsyncResult[R] = AsyncResult(task_id, self._queue)
        result.ignored = self._ignored
        return result

    @property
    def app(self) -> TaskQueue:
        return self._queue

    @property
    def ids(self) -> Ids | None:
        """Of all of them; None where some are more than tasks that are waited for."""
        return None if self._others or self._ignored else self._ids

    def add(self, ids: Iterable[str], *, ignored: bool = False) -> None:
        self._ignored = ignored
        self._ids.extend(ids)

    def add_other(self, result: AsyncResult[Any] | GroupResult[Any]) -> None:
        self._others[len(self._ids)] = result
        self._ids.append(result.id)
