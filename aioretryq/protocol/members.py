"""Members of a group that a generator makes: one by one, when they are sent, so that a million need no memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aioretryq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

KEPT = 1000
"""So many are remembered: what is not longer can be read, and sent, as often as a list."""

_NO_MORE: Any = object()


class _Source(Generic[T]):
    """An iterator, with the first that it gave."""

    __slots__ = ("_ended", "_error", "_items", "_kept", "_lost")

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._kept: list[T] = []
        self._ended = False
        self._error: BaseException | None = None
        self._lost = False

    def first(self, count: int) -> list[T]:
        while len(self._kept) < min(count, KEPT) and self._pull():
            pass
        return self._kept[:count]

    def __iter__(self) -> Iterator[T]:
        self._check()
        read = 0
        while read < len(self._kept) or (read <= KEPT and self._pull()):
            yield self._kept[read]
            read += 1
        if self._ended:
            return
        self._check()  # somebody else may have been faster
        self._lost = True
        while (found := self._next()) is not _NO_MORE:
            yield found

    def _pull(self) -> bool:
        self._check()
        if not self._ended:
            found = self._next()
            if found is _NO_MORE:
                self._ended = True
            else:
                self._kept.append(found)
        return not self._ended

    def _next(self) -> Any:
        try:
            return next(self._items, _NO_MORE)
        except BaseException as error:  # after which a generator says that it has come to its end
            self._error = error
            raise

    def _check(self) -> None:
        if self._error is not None:
            raise ConfigError(
                f"The generator of this group's members has raised {self._error!r}: there is only a part of them. "
                "Compose the group again."
            ) from self._error
        if self._lost:
            raise _too_late()


class _Listed(Generic[T]):
    """All of them in memory."""

    __slots__ = ("_items",)

    def __init__(self, items: tuple[T, ...]) -> None:
        self._items = items

    def first(self, count: int) -> list[T]:
        return list(self._items[:count])

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)


class Members(Generic[T]):
    """What an iterator gives, changed on its way. Has no length. Can be read once, or as often as one likes where
    there are not more than `KEPT`; another reading is a ConfigError. So is each after an exception of the iterator.
    Those of a tuple are `listed`: it is changed when it is read, as often as one likes."""

    __slots__ = ("_changes", "_source")

    def __init__(self, items: Iterable[Any], *changes: Callable[[Any], Any]) -> None:
        self._source: _Source[Any] | _Listed[Any]
        if isinstance(items, _Source | _Listed):
            self._source = items
        else:
            self._source = _Listed(items) if isinstance(items, tuple) else _Source(iter(items))
        self._changes = changes

    @property
    def listed(self) -> bool:
        return isinstance(self._source, _Listed)

    def __iter__(self) -> Iterator[T]:
        return map(self._changed, self._source)

    def first(self, count: int) -> list[T]:
        """The first ones, at most so many (and `KEPT`): they are made now, and given again when all are read."""
        return [self._changed(item) for item in self._source.first(count)]

    def map(self, change: Callable[[T], T]) -> Members[T]:
        """The same, each changed when it is read. They come from one iterator: only one of both can be read."""
        return Members(self._source, *self._changes, change)

    def __repr__(self) -> str:
        return "<members of a generator>"

    def __deepcopy__(self, memo: object) -> Members[T]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)

    def _changed(self, item: Any) -> T:
        for change in self._changes:
            item = change(item)
        made: T = item
        return made


def _too_late() -> ConfigError:
    return ConfigError(
        f"The members of this group come from a generator and have been read already; more than {KEPT} are not kept "
        "in memory. Compose it again for each sending, or of a list."
    )
