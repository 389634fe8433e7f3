"""What a signature can be besides one call: a chain, a group, a chord."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from msgspec.structs import replace

from aioretryq.canvas.signature import Called, Signature, of_node
from aioretryq.linking import arguments_of, node_of
from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import Node, group_of, steps_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
    from typing import Unpack

    from typing_extensions import TypeVar

    from aioretryq.calling import CallKeywords, Link
    from aioretryq.results.group import GroupResult
    from aioretryq.results.result import AsyncResult
    from aioretryq.workflows.shapes import Steps

    R = TypeVar("R", covariant=True)
    T = TypeVar("T", covariant=True, default=AsyncResult[R])
    M = TypeVar("M")
    B = TypeVar("B")
    U = TypeVar("U")
    _GroupOf = Signature[list[M], GroupResult[M]]
else:
    _GroupOf = Signature


class Chain(Signature["R", "T"], kind="chain"):
    """Steps, each called with the value of the one before."""

    __slots__ = ()

    @property
    def tasks(self) -> tuple[Signature[Any, Any], ...]:
        """The steps."""
        return tuple(of_node(step, self._app) for step in steps_of(self._node))


class Group(_GroupOf["M"], kind="group"):
    """Members that run at the same time. Its value is the list of theirs."""

    __slots__ = ()

    @property
    def tasks(self) -> tuple[Signature[Any, Any], ...]:
        """The members; those of a generator are made now."""
        return tuple(of_node(step, self._app) for step in steps_of(self._node))

    def __len__(self) -> int:
        """How many members, as in Celery. TypeError where a generator will make them."""
        if isinstance(self._node.steps, Members):
            raise TypeError("Nobody knows how many members a generator will make.")
        return len(self._node.steps)

    def __bool__(self) -> bool:
        """Whether there are members, or a generator to make them."""
        return self._node.steps != ()

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Group[M]:
        """With a countdown for each member, so that they do not begin at once: `start` seconds for the first, `step`
        more for each one after it, but not more than `stop`."""
        steps = _skewed(self._node.steps, start, stop, step)
        made: Steps = Members(steps) if isinstance(self._node.steps, Members) else tuple(steps)
        return self._of(replace(self._node, steps=made))


class Chord(Signature["R", "T"], kind="chord"):
    """A header of calls that run at the same time, and a body that is called with the list of their values."""

    __slots__ = ()

    @property
    def tasks(self) -> tuple[Signature[Any, Any], ...]:
        """The header's; those of a generator are made now."""
        return tuple(of_node(step, self._app) for step in steps_of(self._node))

    @property
    def header(self) -> Group[Any]:
        return Group(group_of(self._node.steps, **self._node.header), self._app)

    @property
    def body(self) -> Signature[R, T] | None:
        return None if self._node.body is None else of_node(self._node.body, self._app)

    @overload
    def __call__(self, body: None = None, **options: Unpack[CallKeywords]) -> Coroutine[Any, Any, T]: ...
    @overload
    def __call__(self, body: Signature[B, U], **options: Unpack[CallKeywords]) -> Coroutine[Any, Any, U]: ...
    @overload
    def __call__(self, body: Link, **options: Unpack[CallKeywords]) -> Coroutine[Any, Any, Any]: ...
    def __call__(self, body: Any = None, **options: Any) -> Coroutine[Any, Any, Any]:
        """Send it; with this as its body. Await it."""
        return self.apply_async((), {"body": body} if body is not None else None, **options)

    def called(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> Called:
        """See `Signature.called`. `kwargs={"body": ...}` gives it another body."""
        positional, named = arguments_of(args, kwargs, self.task)
        body, given = named.get("body"), {name: value for name, value in named.items() if name != "body"}
        whole = self if body is None else self._of(replace(self._node, body=node_of(body)))
        return super(Chord, whole).called(positional, given, options)


def _skewed(steps: Iterable[Node], start: float, stop: float | None, step: float) -> Iterator[Node]:
    countdown = start * 1.0
    for member in steps:
        yield member.with_options(countdown=countdown)
        if not stop or countdown + step <= stop:
            countdown += step
