"""Signatures: calls to be made later, and workflows of such calls. Values: nothing changes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast, overload

from msgspec.structs import replace

from aioretryq.canvas import joining
from aioretryq.canvas.joining import Joining
from aioretryq.canvas.wording import worded
from aioretryq.errors import ConfigError
from aioretryq.lazy import Lazy
from aioretryq.linking import checked_options, node_of, plain, written
from aioretryq.protocol.signature import (
    TASK,
    Node,
    as_dict,
    merged_arguments,
    merged_options,
    read_signature,
)
from aioretryq.registration import current_queue
from aioretryq.workflows.shapes import link, link_error, listed

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import Generic, Unpack

    from typing_extensions import TypeVar

    from aioretryq.app import TaskQueue
    from aioretryq.calling import CallKeywords, Link
    from aioretryq.canvas import arguments, drawing, eager, stamping
    from aioretryq.canvas.stamping import StampingVisitor
    from aioretryq.results.result import AsyncResult
    from aioretryq.task import Task
    from aioretryq.workflows import sending

    R = TypeVar("R", covariant=True)
    T = TypeVar("T", covariant=True, default=AsyncResult[R])
    S = TypeVar("S")
    U = TypeVar("U")
    App = TaskQueue | Callable[[], TaskQueue] | None

    class _Reading(Mapping[str, Any], Generic[R, T]):
        """Of a value R, which comes as T: an AsyncResult, of groups a GroupResult."""
else:
    _Reading = Mapping
    drawing = Lazy("aioretryq.canvas.drawing")
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
        found = as_dict(self.node)
        return {**found, "kwargs": dict(found["kwargs"]), "options": dict(found["options"])}

    __json__ = to_dict

    # -- what it is

    @property
    def node(self) -> Node:
        """What it is, for those who expand it."""
        return self._node

    @property
    def app(self) -> TaskQueue:
        """The queue it is sent by: its task's, else the current one."""
        return _queue_of(self._app)

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
        return self._node.args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        return MappingProxyType(self.to_dict()["kwargs"])

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the call, by Celery's names."""
        return MappingProxyType(self._node.options)

    @property
    def immutable(self) -> bool:
        """Whether the value of what it follows is kept from it."""
        return self._node.immutable

    @property
    def subtask_type(self) -> str | None:
        return self._node.subtask_type

    @property
    def id(self) -> str | None:
        """The id that it will have, if it was given one: `set(task_id=...)`."""
        return self._node.task_id

    # -- another one

    def clone(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Self:
        """With these arguments before its own, and these options; immutable, with the options only."""
        node = joining.with_arguments(self._node, tuple(args), kwargs or {})
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
        if args is not None:
            changed["args"] = tuple(args)
        if kwargs is not None:
            changed["kwargs"] = dict(kwargs)
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
        app = self._app or getattr(other, "_app", None)
        return of_node(Joining(errbacks_in_header=tells_headers(app)).joined(self._node, right), app)

    def __ror__(self, other: Mapping[str, Any]) -> Signature[R, T]:
        try:
            left = node_of(other)
        except TypeError:
            return NotImplemented
        return of_node(Joining(errbacks_in_header=tells_headers(self._app)).joined(left, self._node), self._app)

    # -- sending

    async def delay(self, *args: Any, **kwargs: Any) -> T:
        """Send it, with these arguments before its own. See `apply_async`."""
        return await self.apply_async(args, kwargs)

    async def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallKeywords]
    ) -> T:
        """Send it: the result of the last thing in it; its `parent` is that of what is before.

        The arguments come before those of its first call, or calls. Options reach every call in it that has none of
        that name. Raises what `Task.apply_async` raises.
        """
        node = arguments.checked(self.node, tuple(args), kwargs or {}, self.app)
        return cast("T", await sending.start(self.app, node, args, kwargs, options))

    def __await__(self) -> Generator[Any, None, T]:
        return self.delay().__await__()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Simply call the function, with these arguments before its own: no queue. A workflow is sent: await it."""
        if self._node.kind != TASK:
            return self.apply_async(args, kwargs)
        merged = merged_arguments(self._node, args, kwargs)
        return self.type(*merged.args, **merged.kwargs)

    async def apply(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run it here and now, without a broker; the results are there when this returns. See `Task.apply`."""
        return await eager.apply(self, args, kwargs or {}, options)

    def draw(self, kind: str = "mermaid") -> str:
        """A picture of it, as text for Mermaid, or with `kind="dot"` for Graphviz."""
        return drawing.draw(drawing.tree_of(self), kind)

    # -- reading it as a dictionary

    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_KEYS)

    def __len__(self) -> int:
        return len(_KEYS)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Signature):
            return self.node == other.node
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


def tells_headers(app: App) -> bool:
    """Whether errbacks of a chord are told of the failures of its header by the header itself, too."""
    try:
        return _queue_of(app).conf.task_allow_error_cb_on_chord_header
    except ConfigError:  # there is no queue yet
        return False


def _queue_of(app: App) -> TaskQueue:
    if app is None:
        return current_queue()
    return app() if callable(app) else app


def _as_lists(value: Any) -> Any:
    """Without telling tuples from lists, which JSON does not either."""
    if isinstance(value, Mapping):
        return {name: _as_lists(each) for name, each in value.items()}
    return [_as_lists(each) for each in value] if isinstance(value, list | tuple) else value
