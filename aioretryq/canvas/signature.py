"""Signatures: calls to be made later, and workflows of such calls. Values: nothing changes one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from aioretryq.protocol.signature import CHAIN, Node, as_dict, read_signature
from aioretryq.registration import current_queue
from aioretryq.workflows.sending import start

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from aioretryq.app import TaskQueue

R = TypeVar("R", covariant=True)


class Signature(Mapping[str, Any], Generic[R]):
    """A call with its arguments and options, or a chain, group or chord. Reads like the dictionary Celery writes.

    Calling a method that changes something returns another signature. `await` sends it: `await (a.s(1) | b.s())`.
    """

    __slots__ = ("_app", "_node")

    def __init__(self, node: Node, app: TaskQueue | None = None) -> None:
        self._node = node
        self._app = app

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], app: TaskQueue | None = None) -> Signature[Any]:
        """What `to_dict`, or Celery, has written. Raises ProtocolError for anything else."""
        return Signature(read_signature(dict(data)), app)

    def to_dict(self) -> dict[str, Any]:
        """As Celery's canvas writes it: task, args, kwargs, options, subtask_type, immutable."""
        return as_dict(self._node)

    @property
    def app(self) -> TaskQueue:
        """The queue it is sent by: its task's, else the current one."""
        return current_queue() if self._app is None else self._app

    @property
    def node(self) -> Node:
        """What it is, for those who expand it."""
        return self._node

    # -- composing

    def __or__(self, other: Signature[Any]) -> Signature[Any]:
        steps = (self._node, other._node)
        return Signature(Node(CHAIN, "celery.chain", subtask_type=CHAIN, steps=steps), self._app)

    # -- sending

    async def delay(self, *args: Any, **kwargs: Any) -> Any:
        return await self.apply_async(args, kwargs)

    async def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        return await start(self.app, self._node, args, kwargs or {}, options)

    def __await__(self) -> Generator[Any, None, Any]:
        return self.delay().__await__()

    # -- reading it as a dictionary

    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())

    def clone(self) -> Self:
        return self
