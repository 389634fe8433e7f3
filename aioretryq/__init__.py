"""An awaitable Celery: an asyncio task queue that speaks Celery's message protocol."""

from typing import TYPE_CHECKING

from aioretryq.app import TaskQueue
from aioretryq.config import Settings
from aioretryq.context import Request, current_task
from aioretryq.errors import (
    AioretryqError,
    BackendError,
    BackendGetMetaError,
    BackendStoreError,
    BackendUnavailable,
    BrokerError,
    BrokerUnavailable,
    ChordError,
    ConfigError,
    ContentDisallowed,
    EncodeError,
    Ignore,
    IncompleteStream,
    MaxRetriesExceededError,
    NotOpenError,
    NotRegistered,
    PartlySent,
    PayloadTooLarge,
    ProtocolError,
    PublishError,
    Reject,
    RemoteTaskError,
    ResultTimeout,
    Retry,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
    UnavailableError,
    UnknownDeadLetter,
    UnknownSettingError,
    WorkerLostError,
)
from aioretryq.lazy import later
from aioretryq.queues import Broadcast, Queue
from aioretryq.registration import shared_task
from aioretryq.retry import IntervalPolicy, RetryPolicy, retrying
from aioretryq.task import Task

if TYPE_CHECKING:
    from aioretryq.canvas.compose import chain, chord, group, signature
    from aioretryq.canvas.maps import chunks, xmap, xstarmap
    from aioretryq.canvas.signature import Signature
    from aioretryq.canvas.stamping import StampingVisitor
    from aioretryq.control import Inspect, RemoteControl, Replies
    from aioretryq.custom_commands import CommandState
    from aioretryq.dead import DeadLetters
    from aioretryq.dead_messages import DeadMessage
    from aioretryq.events import Event, EventReceiver
    from aioretryq.execution import ExceptionInfo
    from aioretryq.results.eager import EagerResult
    from aioretryq.results.group import GroupResult
    from aioretryq.results.result import AsyncResult, Update
    from aioretryq.results.sets import ResultSet
    from aioretryq.worker import Worker

LATER = {
    "AsyncResult": "aioretryq.results.result:AsyncResult",
    "CommandState": "aioretryq.custom_commands:CommandState",
    "DeadLetters": "aioretryq.dead:DeadLetters",
    "DeadMessage": "aioretryq.dead_messages:DeadMessage",
    "EagerResult": "aioretryq.results.eager:EagerResult",
    "Event": "aioretryq.protocol.event:Event",
    "EventReceiver": "aioretryq.events.receiving:EventReceiver",
    "ExceptionInfo": "aioretryq.execution:ExceptionInfo",
    "GroupResult": "aioretryq.results.group:GroupResult",
    "Inspect": "aioretryq.control:Inspect",
    "RemoteControl": "aioretryq.control:RemoteControl",
    "Replies": "aioretryq.control:Replies",
    "ResultSet": "aioretryq.results.sets:ResultSet",
    "Signature": "aioretryq.canvas.signature:Signature",
    "StampingVisitor": "aioretryq.canvas.stamping:StampingVisitor",
    "Update": "aioretryq.results.result:Update",
    "Worker": "aioretryq.worker:Worker",
    "chain": "aioretryq.canvas.compose:chain",
    "chord": "aioretryq.canvas.compose:chord",
    "chunks": "aioretryq.canvas.maps:chunks",
    "group": "aioretryq.canvas.compose:group",
    "signature": "aioretryq.canvas.compose:signature",
    "xmap": "aioretryq.canvas.maps:xmap",
    "xstarmap": "aioretryq.canvas.maps:xstarmap",
}
"""Public names whose modules are imported when somebody asks for them: see `lazy.py`."""

if not TYPE_CHECKING:  # a type checker would take it that every name exists
    __getattr__ = later(__name__, LATER)


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})


__version__ = "0.1.0"

__all__ = [
    "AioretryqError",
    "AsyncResult",
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    "BackendUnavailable",
    "Broadcast",
    "BrokerError",
    "BrokerUnavailable",
    "ChordError",
    "CommandState",
    "ConfigError",
    "ContentDisallowed",
    "DeadLetters",
    "DeadMessage",
    "EagerResult",
    "EncodeError",
    "Event",
    "EventReceiver",
    "ExceptionInfo",
    "GroupResult",
    "Ignore",
    "IncompleteStream",
    "Inspect",
    "IntervalPolicy",
    "MaxRetriesExceededError",
    "NotOpenError",
    "NotRegistered",
    "PartlySent",
    "PayloadTooLarge",
    "ProtocolError",
    "PublishError",
    "Queue",
    "Reject",
    "RemoteControl",
    "RemoteTaskError",
    "Replies",
    "Request",
    "ResultSet",
    "ResultTimeout",
    "Retry",
    "RetryPolicy",
    "Settings",
    "Signature",
    "SoftTimeLimitExceeded",
    "StampingVisitor",
    "Task",
    "TaskQueue",
    "TaskRevokedError",
    "TimeLimitExceeded",
    "UnavailableError",
    "UnknownDeadLetter",
    "UnknownSettingError",
    "Update",
    "Worker",
    "WorkerLostError",
    "chain",
    "chord",
    "chunks",
    "current_task",
    "group",
    "retrying",
    "shared_task",
    "signature",
    "xmap",
    "xstarmap",
]
