"""An awaitable Celery: an asyncio task queue that speaks Celery's message protocol."""

from aioretryq.app import TaskQueue
from aioretryq.config import Settings
from aioretryq.context import Request, current_task
from aioretryq.control import Inspect, RemoteControl, Replies
from aioretryq.custom_commands import CommandState
from aioretryq.dead import DeadLetters
from aioretryq.dead_messages import DeadMessage
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
from aioretryq.events import Event, EventReceiver
from aioretryq.execution import ExceptionInfo
from aioretryq.group_result import GroupResult
from aioretryq.queues import Broadcast, Queue
from aioretryq.registration import shared_task
from aioretryq.result import AsyncResult, EagerResult, Update
from aioretryq.retry import IntervalPolicy, RetryPolicy, retrying
from aioretryq.task import Task
from aioretryq.worker import Worker

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
    "PayloadTooLarge",
    "ProtocolError",
    "PublishError",
    "Queue",
    "Reject",
    "RemoteControl",
    "RemoteTaskError",
    "Replies",
    "Request",
    "ResultTimeout",
    "Retry",
    "RetryPolicy",
    "Settings",
    "SoftTimeLimitExceeded",
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
    "current_task",
    "retrying",
    "shared_task",
]
