"""One task for many arguments: `xmap`, `xstarmap`, `chunks`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aioretryq.canvas.kinds import Group
from aioretryq.canvas.signature import Signature
from aioretryq.errors import ConfigError
from aioretryq.linking import checked_options, node_of
from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import TASK, Node, as_dict, group_of

if TYPE_CHECKING:
    from typing import Unpack

    from typing_extensions import TypeVar

    from aioretryq.calling import CallKeywords, Link
    from aioretryq.canvas.signature import App
    from aioretryq.results.group import GroupResult

    R = TypeVar("R", covariant=True)
    V = TypeVar("V")
    _ChunksOf = Signature[list[list[R]], GroupResult[list[R]]]
else:
    _ChunksOf = Signature


def xmap(task: Signature[V, Any] | Link, it: Iterable[Any], **options: Any) -> Signature[list[V]]:
    """One call (`celery.map`) that runs the task for each of `it`, one after the other: a list of values."""
    return Signature(_mapping("celery.map", task, {"it": list(it)}, options), _app_of(task))


def xstarmap(task: Signature[V, Any] | Link, it: Iterable[Sequence[Any]], **options: Any) -> Signature[list[V]]:
    """The same (`celery.starmap`), where each is a list of arguments."""
    return Signature(_mapping("celery.starmap", task, {"it": list(it)}, options), _app_of(task))


def chunks(task: Signature[V, Any] | Link, it: Iterable[Sequence[Any]], n: int, **options: Any) -> Chunks[V]:
    """Lists of arguments, run `n` in a call: a group of `xstarmap`s when it is sent.

    Those of a generator are read when it is sent. As a part of another workflow it is one call, of `celery.chunks`,
    whose worker sends the group: its value is a list of ids then, as in Celery.
    """
    if type(n) is not int or n < 1:
        raise ConfigError(f"Chunks have at least one item each, n={n!r} is not possible.")
    items: Any = Members(it) if isinstance(it, Iterator) else list(it)
    return Chunks(_mapping("celery.chunks", task, {"it": items, "n": n}, options), _app_of(task))


class Chunks(_ChunksOf["R"], kind="chunks"):
    """A task for many lists of arguments, `n` of them in a call."""

    __slots__ = ()

    @property
    def node(self) -> Node:
        """As one call: of a generator all items are read for it."""
        kwargs = self._node.kwargs
        return replace(self._node, kwargs={**kwargs, "it": list(kwargs["it"])})

    def group(self) -> Group[list[R]]:
        """What is sent."""
        task, items, size = (self._node.kwargs[name] for name in ("task", "it", "n"))
        parts = (_mapping("celery.starmap", task, {"it": part}, {}) for part in _cut(items, size))
        return Group(group_of(Members(parts) if isinstance(items, Members) else parts), self._app)

    async def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallKeywords]
    ) -> GroupResult[list[R]]:
        """Send the group. Its members are immutable: arguments are of no use."""
        merged = {**self._node.options, **options}
        return await self.group().apply_async((), None, **merged)

    async def apply(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """See `Signature.apply`."""
        return await self.group().apply((), None, **{**self._node.options, **options})

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Send the group: await it."""
        return self.apply_async(**options)


def _mapping(name: str, task: Any, given: Mapping[str, Any], options: Mapping[str, Any]) -> Node:
    written = as_dict(node_of(task))
    checked = checked_options(options, name) if options else {}
    return Node(TASK, name, kwargs={"task": written, **given}, options=checked, immutable=True)


def _app_of(task: Any) -> App:
    return getattr(task, "_app", None)


def _cut(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    waiting = iter(items)
    while part := list(islice(waiting, size)):
        yield part
