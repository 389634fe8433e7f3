"""One task for many arguments: `xmap`, `xstarmap`, `chunks`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aioretryq.canvas.apps import app_of
from aioretryq.canvas.kinds import Group
from aioretryq.canvas.signature import Called, Signature
from aioretryq.errors import ConfigError
from aioretryq.linking import checked_options, node_of
from aioretryq.protocol.members import Members
from aioretryq.protocol.saferepr import saferepr
from aioretryq.protocol.signature import TASK, Node, as_dict, group_of

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from aioretryq.calling import Link
    from aioretryq.results.group import GroupResult

    R = TypeVar("R", covariant=True)
    V = TypeVar("V")
    _ChunksOf = Signature[list[list[R]], GroupResult[list[R]]]
else:
    _ChunksOf = Signature


def xmap(task: Signature[V, Any] | Link, it: Iterable[Any], **options: Any) -> Signature[list[V]]:
    """One call (`celery.map`) that runs the task for each of `it`, one after the other: a list of values."""
    return Signature(_mapping("celery.map", task, {"it": list(it)}, options), app_of(task))


def xstarmap(task: Signature[V, Any] | Link, it: Iterable[Sequence[Any]], **options: Any) -> Signature[list[V]]:
    """The same (`celery.starmap`), where each is a list of arguments."""
    return Signature(_mapping("celery.starmap", task, {"it": list(map(_arguments, it))}, options), app_of(task))


def chunks(task: Signature[V, Any] | Link, it: Iterable[Sequence[Any]], n: int, **options: Any) -> Chunks[V]:
    """Lists of arguments, run `n` in a call: a group of `xstarmap`s when it is sent.

    Those of a generator are read when it is sent. A part of another workflow is that group, too; Celery makes it one
    call of `celery.chunks` there, whose value is a list of ids.
    """
    if type(n) is not int or n < 1:
        raise ConfigError(f"Chunks have at least one item each, n={n!r} is not possible.")
    items: Any = Members(it, _arguments) if isinstance(it, Iterator) else list(map(_arguments, it))
    return Chunks(_mapping("celery.chunks", task, {"it": items, "n": n}, options), app_of(task))


class Chunks(_ChunksOf["R"], kind="chunks"):
    """A task for many lists of arguments, `n` of them in a call."""

    __slots__ = ()

    @property
    def node(self) -> Node:
        """As one call: of a generator all items are read for it."""
        kwargs = self._node.kwargs
        return replace(self._node, kwargs={**kwargs, "it": list(kwargs["it"])})

    @property
    def part(self) -> Node:
        """The group: Celery's `celery.chunks`, as a step, gives ids instead of values."""
        return self.group().node

    def group(self) -> Group[list[R]]:
        """What is sent."""
        task, items, size = (self._node.kwargs[name] for name in ("task", "it", "n"))
        parts = (_mapping("celery.starmap", task, {"it": part}, {}) for part in _cut(items, size))
        return Group(group_of(Members(parts) if isinstance(items, Members) else parts), self._app)

    def called(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> Called:
        """The group. Its members are immutable: arguments are of no use."""
        return self.group().called((), None, {**self._node.options, **options})

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Send the group: await it."""
        return self.apply_async(**options)


def _mapping(name: str, task: Any, given: Mapping[str, Any], options: Mapping[str, Any]) -> Node:
    written = as_dict(node_of(task))
    checked = checked_options(options, name) if options else {}
    return Node(TASK, name, kwargs={"task": written, **given}, options=checked, immutable=True)


def _arguments(item: Any) -> Any:
    if isinstance(item, list | tuple) or (isinstance(item, Sequence) and not isinstance(item, str | bytes)):
        return item
    raise TypeError(f"starmap and chunks take lists of arguments, not {saferepr(item, 80)}: [(1, 2), (3, 4)].")


def _cut(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    waiting = iter(items)
    while part := list(islice(waiting, size)):
        yield part
