"""What stands for results of what will be sent: ids, and how they belong together. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from aioretryq.ids import Ids

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(eq=False, slots=True)
class Handle:
    """The result of something that will be sent: of a `task`, if its name is known, or with `members` of a group."""

    id: str
    parent: Handle | None = None
    members: Sequence[Handle] | None = None
    task: str | None = None

    def as_tuple(self) -> list[Any]:
        """As Celery stores it, in `children` and for groups."""
        line: list[Handle] = [self]
        written: list[Any] | None = None
        while line[-1].parent is not None:
            line.append(line[-1].parent)
        for each in reversed(line):
            members = None if each.members is None else [member.as_tuple() for member in each.members]
            written = [[each.id, written], members]
        assert written is not None
        return written

    @property
    def origin(self) -> Handle:
        """The first of its ancestors."""
        found = self
        while found.parent is not None:
            found = found.parent
        return found


class ManyHandles(Sequence[Handle]):
    """Of very many tasks, made of their `ids` when asked for. Those with members or a parent are kept as they are."""

    __slots__ = ("_named", "_names", "_others", "_places", "ids")

    def __init__(self) -> None:
        self.ids = Ids()
        self._names: list[str | None] = []  # of their tasks
        self._places: dict[str | None, int] = {}  # of the names
        self._named = array("I")  # of the name of each, where there are several
        self._others: dict[int, Handle] = {}

    def __repr__(self) -> str:
        return f"<handles of {len(self)} members>"

    @property
    def plain(self) -> bool:
        """Whether `ids` say it all."""
        return not self._others

    @property
    def alike(self) -> bool:
        """Whether they are calls of one task, and `ids` say the rest."""
        return not self._others and len(self._names) <= 1

    @property
    def nested(self) -> bool:
        """Whether some of them are groups."""
        return any(each.members is not None for each in self._others.values())

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Handle: ...
    @overload
    def __getitem__(self, index: slice) -> list[Handle]: ...
    def __getitem__(self, index: int | slice) -> Handle | list[Handle]:
        numbers = range(len(self))[index]
        if isinstance(numbers, int):
            return self._others.get(numbers) or Handle(self.ids[numbers], task=self._name(numbers))
        return [self[number] for number in numbers]

    def __iter__(self) -> Iterator[Handle]:
        for number, task_id in enumerate(self.ids):
            yield self._others.get(number) or Handle(task_id, task=self._name(number))

    def _name(self, number: int) -> str | None:
        return self._names[self._named[number] if self._named else 0]

    def append(self, handle: Handle) -> None:
        self._name_it(handle.task)
        if handle.members is not None or handle.parent is not None:
            self._others[len(self)] = handle
        self.ids.append(handle.id)

    def _name_it(self, task: str | None) -> None:
        place = self._places.setdefault(task, len(self._names))
        if place == len(self._names):
            self._names.append(task)
            if place == 1:
                self._named.extend([0] * len(self))
        if len(self._names) > 1:
            self._named.append(place)
