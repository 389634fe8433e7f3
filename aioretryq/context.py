"""The run that is going on: which task, with which request. One context variable, nothing on shared objects."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from aioretryq.protocol.saferepr import saferepr

if TYPE_CHECKING:
    from aioretryq.app import TaskQueue
    from aioretryq.message import Signature, TaskMessage
    from aioretryq.task import Task


class _OfMessage:
    """Not a field of a request: what is copied, shown or compared are those."""

    __slots__ = ("_message",)
    _message: TaskMessage

    def _take(self, message: TaskMessage) -> None:
        self._message = message


@dataclass(slots=True, kw_only=True)
class Request(_OfMessage):
    """What a task may know of its own run, as `task.request` (celery/app/task.py, Context)."""

    id: str | None = None
    task: str | None = None
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    retries: int = 0
    eta: str | None = None
    expires: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    chord: Signature | None = None
    chain: list[Signature] | None = None
    callbacks: list[Signature] | None = None
    errbacks: list[Signature] | None = None
    origin: str | None = None
    shadow: str | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] = field(default_factory=dict)
    replaced_task_nesting: int = 0
    hostname: str | None = None
    is_eager: bool = False
    called_directly: bool = False
    ignore_result: bool = False
    time_limit: float | None = None
    soft_time_limit: float | None = None
    delivery_info: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, Any] = field(default_factory=dict)
    reply_to: str | None = None
    correlation_id: str | None = None
    children: list[Any] = field(default_factory=list)
    deliveries: int = 1
    """How often a worker took this attempt's message and died with it or still has it."""
    interruptions: int = 0
    """How often a stopping worker handed this attempt's message back: that costs nothing."""
    cancel_reason: str | None = None
    """Why this run is being cancelled: SHUTDOWN, REVOKED or LEASE_LOST. Plain functions, which nobody can cancel,
    may look here; coroutines find it in `CancelledError.args` too."""

    @property
    def attempts(self) -> int:
        """How often the body was begun and raised, this run included: `retries + 1`."""
        return self.retries + 1

    # What Celery's tasks may ask for, too; none of it costs anything until somebody does.

    @property
    def timelimit(self) -> list[float | None]:
        """Hard and soft limit, where the message has them."""
        return [self.time_limit, self.soft_time_limit]

    @property
    def argsrepr(self) -> str:
        return saferepr(tuple(self.args))

    @property
    def kwargsrepr(self) -> str:
        return saferepr(self.kwargs)

    @property
    def lang(self) -> str:
        """The language of the task."""
        return "py"

    @property
    def utc(self) -> bool:
        """Whether `eta` and `expires` are in UTC where they do not say."""
        return True

    @property
    def redelivered(self) -> bool:
        """Whether an earlier worker did not finish the message."""
        return bool(self.delivery_info.get("redelivered"))

    @property
    def properties(self) -> dict[str, Any]:
        """What travelled beside the headers of the message."""
        return {
            "correlation_id": self.correlation_id,
            "reply_to": self.reply_to,
            "delivery_info": {name: self.delivery_info.get(name) for name in ("exchange", "routing_key")},
            "priority": self.delivery_info.get("priority"),
        }

    @classmethod
    def of(
        cls,
        message: TaskMessage,
        *,
        hostname: str | None = None,
        ignore_result: bool = False,
        delivery_info: dict[str, Any] | None = None,
        deliveries: int = 1,
        interruptions: int = 0,
    ) -> Request:
        """Of the run of a message. What the message says is taken over when somebody asks for it: of some thirty
        fields a run needs five."""
        request = cls.__new__(cls)
        request._take(message)
        request.id, request.task, request.args, request.kwargs = (
            message.id,
            message.task,
            message.args,
            message.kwargs,
        )
        request.time_limit, request.soft_time_limit = message.time_limit, message.soft_time_limit
        request.hostname = hostname
        request.is_eager = request.called_directly = False
        request.ignore_result = ignore_result
        request.delivery_info = {} if delivery_info is None else delivery_info
        request.children = []
        request.deliveries, request.interruptions = deliveries, interruptions
        request.cancel_reason = None
        return request

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        """For copies and pickles: all fields, and not the message, which may know a private key."""
        return None, {each.name: getattr(self, each.name) for each in fields(self)}

    if not TYPE_CHECKING:  # all fields are declared

        def __getattr__(self, name: str) -> Any:
            """A field of the message that nobody has asked for yet."""
            if name not in _OF_MESSAGE:
                raise AttributeError(f"'Request' has no attribute {name!r}")
            value = getattr(self._message, name)
            if name == "root_id":
                value = value or self._message.id
            setattr(self, name, value)
            return value


_OF_MESSAGE = frozenset(
    "retries eta expires root_id parent_id group group_index chord chain callbacks errbacks origin "
    "shadow stamped_headers stamps replaced_task_nesting headers reply_to correlation_id".split()
)


@dataclass(slots=True, eq=False)  # not frozen: made for every run, and that would make it four times as expensive
class Run:
    task: Task[Any, Any]
    request: Request
    app: TaskQueue
    additions: int = 0
    """Parts that it has added to the chord it is a part of."""


current_run: ContextVar[Run | None] = ContextVar("aioretryq_run", default=None)


def current_task() -> Task[Any, Any]:
    """The task that is running here; its `request` is this run's. RuntimeError outside of a task."""
    run = current_run.get()
    if run is None:
        raise RuntimeError("current_task() was called outside of a running task.")
    return run.task
