"""Signatures: calls to be made later, and workflows of such calls. Values: nothing changes one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast, overload

from msgspec import Struct
from msgspec.structs import replace

from aioretryq.calling import CallOptions, check_stamps
from aioretryq.canvas import joining
from aioretryq.canvas.apps import app_of, either, queue_of, tells_headers
from aioretryq.canvas.joining import Joining
from aioretryq.canvas.wording import worded
from aioretryq.errors import ConfigError
from aioretryq.lazy import Lazy
from aioretryq.linking import TOO_DEEP, arguments_of, checked_options, kept, node_of, plain, with_signatures, written
from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import (
    TASK,
    Node,
    as_dict,
    listed,
    merged_arguments,
    merged_options,
    read_signature,
)
from aioretryq.workflows.check import check_depth
from aioretryq.workflows.shapes import link, link_error

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Generic, Unpack

    from typing_extensions import TypeVar

    from aioretryq.app import TaskQueue
    from aioretryq.calling import CallKeywords, Link
    from aioretryq.canvas import arguments, eager, stamping
    from aioretryq.canvas.apps import App
    from aioretryq.canvas.stamping import StampingVisitor
    from aioretryq.drawing import pictures
    from aioretryq.results.result import AsyncResult
    from aioretryq.task import Task
    from aioretryq.workflows import sending

    R = TypeVar("R", covariant=True)
    T = TypeVar("T", covariant=True, default=AsyncResult[R])
    S = TypeVar("S")
    U = TypeVar("U")

    class _Reading(Mapping[str, Any], Generic[R, T]):
        """Of a value R, which comes as T: an AsyncResult, of groups a GroupResult."""
else:
    _Reading = Mapping
    pictures = Lazy("aioretryq.drawing.pictures")
    eager = Lazy("aioretryq.canvas.eager")
    arguments = Lazy("aioretryq.canvas.arguments")
    sending = Lazy("aioretryq.workflows.sending")
    stamping = Lazy("aioretryq.canvas.stamping")


class Signature(_Reading["R", "T"]):
    """A call with its arguments and options, or a chain, group or chord. Reads like the dictionary Celery writes.

    Nothing changes one: `set`, `clone`, `link`, `link_error`, `stamp` and `|` give another. It equals what reads
    alike, and so has no hash. `await` sends it and gives its result: `result = await (a.s(1) | b.s())`.

    For type checkers: a `Signature[R]` gives an `AsyncResult[R]`; a `Signature[R, T]` a T.
    """

    __slots__ = ("_app", "_node")
    kinds: ClassVar[dict[str | None, type[Signature[Any, Any]]]] = {}
    """The class of each `subtask_type`; `canvas/kinds.py` and `canvas/maps.py` fill it."""

    def __init_subclass__(cls, *, kind: str | None = None) -> None:
        if kind is not None:
            Signature.kinds[kind] = cls

    def __init__(self, node: Node, app: App = None) -> None:
        self._node = node
        self._app = app

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], app: App = None) -> Signature[Any, Any]:
        """What `to_dict`, or Celery, has written. Raises ProtocolError for anything else."""
        return of_node(read_signature(plain(data)), app)

    def to_dict(self) -> dict[str, Any]:
        """As Celery's canvas writes it: task, args, kwargs, options, subtask_type, immutable."""
        found: dict[str, Any] = kept(as_dict(self.node))
        return found

    __json__ = to_dict

    # -- what it is

    @property
    def node(self) -> Node:
        """What it is, for those who expand it."""
        return self._node

    @property
    def part(self) -> Node:
        """What it is as a part of a workflow."""
        return self.node

    @property
    def app(self) -> TaskQueue:
        """The queue it is sent by: its task's, else the current one."""
        return queue_of(self._app)

    @property
    def task(self) -> str:
        """The name of the task; `celery.chain`, `celery.group` or `celery.chord`."""
        return self._node.task

    name = task

    @property
    def type(self) -> Task[..., Any]:
        """The task itself. NotRegistered if this process does not have it."""
        return self.app.find_task(self.task)

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments that it has, without those that it is given when it is called."""
        return tuple(map(kept, self._node.args))

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """The arguments by name; of a workflow what it is made of, as Celery writes it."""
        return MappingProxyType(self.to_dict()["kwargs"])

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the call, by Celery's names."""
        return MappingProxyType({name: kept(value) for name, value in self._node.options.items()})

    @property
    def immutable(self) -> bool:
        """Whether the value of what it follows is kept from it."""
        return self._node.immutable

    @property
    def subtask_type(self) -> str | None:
        """`chain`, `group`, `chord`, `chunks`, ...; None of a call."""
        return self._node.subtask_type

    @property
    def id(self) -> str | None:
        """The id that it will have, if it was given one: `set(task_id=...)`."""
        return self._node.task_id

    # -- another one

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Self:
        """With these arguments before its own, and these options; immutable, with the options only."""
        positional, named = arguments_of(args, kwargs, self.task)
        node = joining.with_arguments(self._node, kept(positional), kept(dict(named)))
        given = checked_options(options, self.task, self._stamped()) if options else {}
        return self._of(replace(node, options=merged_options(node, given)))

    partial = clone

    def replace(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """With these instead of its own; None leaves what it has."""
        changed: dict[str, Any] = {}
        if (args is not None or kwargs is not None) and self._node.kind != TASK:
            raise ConfigError(f"The arguments of a {self._node.kind} are those of what is in it: use clone().")
        positional, named = arguments_of(args, kwargs, self.task)
        if args is not None:
            changed["args"] = kept(positional)
        if kwargs is not None:
            changed["kwargs"] = kept(dict(named))
        if options is not None:
            changed["options"] = checked_options(options, self.task)
        return self._of(replace(self._node, **changed))

    def set(self, *, immutable: bool | None = None, **options: Any) -> Self:
        """With these options; ConfigError for such that no call has. `immutable`: see `set_immutable`."""
        node = self._node if immutable is None else joining.made_immutable(self._node, immutable)
        if options:
            given = checked_options(options, self.task, self._stamped())
            node = replace(node, options={**node.options, **given})
        return self._of(node)

    def set_immutable(self, immutable: bool) -> Self:
        """Not given the value of what it follows; of a group, its members; of a chord, its header."""
        return self.set(immutable=immutable)

    def link(self, callback: Link) -> Self:
        """With a call to be made with its value when it has succeeded: of a chord, of the value of its body; of a
        group, when its first member has, and without a value.

        Unlike Celery's this changes nothing, and gives not the callback but the signature that has it.
        """
        return self._of(link(self._node, written(callback)))

    def link_error(self, errback: Link) -> Self:
        """With a call to be made when it fails: of a group, when a member does; of a chord, when its body does, which
        it does with any part of the header. Returns the signature that has it, as `on_error`.
        """
        return self._of(link_error(self._node, written(errback), tells_headers(self._app)))

    on_error = link_error

    def flatten_links(self) -> list[Signature[Any, Any]]:
        """This one, and all that follow from it by `link`."""
        found: list[Signature[Any, Any]] = [self]
        for callback in listed(self._node.options.get("link")):
            found += of_node(node_of(callback), self._app).flatten_links()
        return found

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **stamps: Any) -> Self:
        """With these stamps, and those that the visitor gives, on every call in it, and in its links.

        `append_stamps`: a stamp that there is already becomes a list of both.
        """
        return self._of(stamping.stamped(self._node, visitor, stamps, append=append_stamps, app=self._app))

    def stamp_links(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **stamps: Any) -> Self:
        """The same for its callbacks and errbacks only."""
        return self._of(stamping.links_stamped(self._node, visitor, stamps, append=append_stamps, app=self._app))

    @overload
    def __or__(self, other: Signature[S, U]) -> Signature[S, U]: ...
    @overload
    def __or__(self, other: Mapping[str, Any]) -> Signature[Any, Any]: ...
    def __or__(self, other: Mapping[str, Any]) -> Signature[Any, Any]:
        try:
            right = node_of(other)
        except TypeError:
            return NotImplemented
        return composed(lambda joining: joining.joined(self.part, right), either(self._app, app_of(other)))

    def __ror__(self, other: Mapping[str, Any]) -> Signature[R, T]:
        try:
            left = node_of(other)
        except TypeError:
            return NotImplemented
        return composed(lambda joining: joining.joined(left, self.part), self._app)

    # -- sending

    async def delay(self, *args: Any, **kwargs: Any) -> T:
        """Send it, with these arguments before its own. See `apply_async`."""
        return await self.apply_async(args, kwargs)

    async def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallKeywords],
    ) -> T:
        """Send it: the result of the last thing in it; its `parent` is that of what is before.

        The arguments come before those of its first call, or calls. Options reach every call in it that has none of
        that name. Raises what `Task.apply_async` raises.
        """
        called = self.called(args, kwargs, options)
        return cast("T", await sending.start(self.app, called.node, called.args, called.kwargs, called.options))

    def called(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> Called:
        """What is sent, or run in place, when it is called with these. Raises what is wrong with that."""
        positional, named = map(kept, arguments_of(args, kwargs, self.task))
        given = with_signatures(options, self.task)
        check_stamps(CallOptions.of(given, self.task).stamps or (), self.task)
        check_depth(self.node)
        return Called(arguments.checked(self.node, positional, named, self.app), positional, named, given)

    def __await__(self) -> Generator[Any, None, T]:
        return self.delay().__await__()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Simply call the function, with these arguments before its own: no queue. A workflow is sent: await it."""
        if self._node.kind != TASK:
            return self.apply_async(args, kwargs)
        merged = merged_arguments(self._node, args, kwargs)
        return self.type(*merged.args, **merged.kwargs)

    async def apply(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Run it here and now, without a broker; the results are there when this returns. See `Task.apply`."""
        return await eager.apply(self, args, kwargs, options)

    def draw(self, kind: str = "mermaid") -> str:
        """A picture of it, as text for Mermaid, or with `kind="dot"` for Graphviz."""
        return pictures.draw(pictures.tree_of(self), kind)

    # -- reading it as a dictionary

    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    if not TYPE_CHECKING:  # checkers know that of Mapping, which needs a key

        def get(self, key: Any = None, default: Any = None, **others: Any) -> Any:
            """Of the dictionary: `get(name, default)`. A value has the result of what was sent."""
            if others or not isinstance(key, str):
                raise TypeError(f"This is not sent yet: `await (await signature.delay()).get()`. It is {self!r}.")
            return super().get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(_KEYS)

    def __len__(self) -> int:
        return len(_KEYS)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Signature):
            return self.node == other.node or _comparable(self.node) == _comparable(other.node)
        return isinstance(other, Mapping) and _as_lists(self.to_dict()) == _as_lists(other)

    def __repr__(self) -> str:
        return worded(self._node)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._of(deepcopy(self._node, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return of_node, (self.node,)  # whoever reads it has a queue of its own

    # -- for those below

    def _of(self, node: Node) -> Self:
        return type(self)(node, self._app)

    def _stamped(self) -> Sequence[str]:
        return self._node.options.get("stamped_headers") or ()


_KEYS = ("task", "args", "kwargs", "options", "subtask_type", "immutable")


def of_node(node: Node, app: App = None) -> Signature[Any, Any]:
    """As what it is: a Chain, a Group, ..."""
    return Signature.kinds.get(node.subtask_type, Signature)(node, app)


class Called(Struct, frozen=True):
    """A signature with what it is called with."""

    node: Node
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]


def composed(join: Callable[[Joining], Node], app: App) -> Signature[Any, Any]:
    """What is made of several."""
    try:
        return of_node(join(Joining(errbacks_in_header=tells_headers(app))), app)
    except RecursionError:
        raise ConfigError(TOO_DEEP) from None


def _comparable(node: Node) -> tuple[Any, ...]:
    """As what it reads. Members of a generator are not made for that."""
    steps = node.steps if isinstance(node.steps, Members) else [_comparable(step) for step in node.steps]
    body = None if node.body is None else _comparable(node.body)
    own = (node.task, node.subtask_type, node.immutable, node.listed and not node.header)
    values = (node.args, node.kwargs, node.options, node.header)
    return (*own, *map(_as_lists, values), steps, body)


def _as_lists(value: Any) -> Any:
    """Without telling tuples from lists, which JSON does not either."""
    if isinstance(value, Mapping):
        return {name: _as_lists(each) for name, each in value.items()}
    return [_as_lists(each) for each in value] if isinstance(value, list | tuple) else value
