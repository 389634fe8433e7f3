"""Every exception of aioretryq, in one tree. Each message says what to do next.

::

    AioretryqError
    ├── ConfigError                 a setting, URL, option or application path is wrong
    │   ├── UnknownSettingError
    │   └── NotOpenError            the queue is used outside `async with queue:`
    ├── UnavailableError            a server cannot be reached at the moment: worth retrying
    │   ├── BrokerUnavailable
    │   └── BackendUnavailable
    ├── BrokerError                 the broker refused an operation: retrying will not help
    ├── BackendError                the result backend refused an operation
    │   ├── BackendStoreError       a result could not be stored
    │   └── BackendGetMetaError     a result could not be read
    ├── PublishError                a task was not sent, or may not have been (Celery: OperationalError)
    │   └── PartlySent              some of many calls, or of a workflow, were sent
    ├── ProtocolError               bytes that are not a message or a result
    │   └── ContentDisallowed       a serializer that `accept_content` does not allow
    ├── EncodeError                 arguments or a result that cannot be serialised
    │   └── PayloadTooLarge
    ├── ResultTimeout               `get(timeout=...)` ran out (also a TimeoutError)
    ├── IncompleteStream            results of a task's children are asked for before it is done
    ├── NotRegistered               no task of that name here (also a KeyError)
    ├── TaskPredicate               raised inside a task to say what should become of it
    │   ├── Retry
    │   ├── Ignore
    │   │   └── Replaced            by `task.replace(signature)`
    │   └── Reject
    ├── UnknownDeadLetter           no dead letter has that id (also a LookupError)
    ├── MaxRetriesExceededError
    ├── TaskRevokedError
    ├── TimeLimitExceeded
    ├── SoftTimeLimitExceeded       raised inside a task that may still clean up
    ├── WorkerLostError             the workers that had a task died with it, too often
    └── RemoteTaskError             stand-in for a task's exception whose class is not loaded here
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq.lazy import Lazy

if TYPE_CHECKING:
    import difflib
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from aioretryq.protocol.signature import Node
else:
    difflib = Lazy("difflib")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


class AioretryqError(Exception):
    """Base of everything raised by this package."""


class ConfigError(AioretryqError):
    """The configuration is wrong; the message names the setting and what it may be."""


class UnknownSettingError(ConfigError, AttributeError):
    """A setting or option of that name does not exist."""


class NotOpenError(ConfigError):
    """An operation needs the queue to be open (`async with queue:`)."""


class UnavailableError(AioretryqError):
    """A server cannot be reached or cannot answer now. The operation may be tried again.

    `maybe_done` is false where it is known that nothing was done; where only the reply is missing, it may have been.
    """

    maybe_done = True


class BrokerUnavailable(UnavailableError):
    """The broker cannot be reached now."""


class BackendUnavailable(UnavailableError):
    """The result backend cannot be reached now."""


class BrokerError(AioretryqError):
    """The broker refused the operation; trying again will not help."""


class BackendError(AioretryqError):
    """The result backend refused the operation; trying again will not help."""


class BackendStoreError(BackendError):
    """A result could not be stored; the original error is the `__cause__`."""

    def __init__(self, message: str, *, task_id: str, state: str) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.state = state


class BackendGetMetaError(BackendError):
    """A result could not be read; the original error is the `__cause__`."""

    def __init__(self, message: str, *, task_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id


class PublishError(AioretryqError):
    """The broker has not confirmed the task; its error is the `__cause__`.

    `maybe_sent` is false where it is known that the task was not sent. Otherwise it was on its way: sending it again
    may run it twice.
    """

    def __init__(self, message: str, *, maybe_sent: bool = True) -> None:
        super().__init__(message)
        self.maybe_sent = maybe_sent


class PartlySent(PublishError):
    """Some calls of `delay_many`, or messages of a workflow, were sent, and others not; the reason for the first of
    those is the `__cause__`.

    `results` are those of the calls that have been sent, in their order. `failed` says of each other one, by its
    number from 0, why. Of the calls from number `tried` on none was sent.
    """

    def __init__(
        self, message: str, *, results: Sequence[Any], failed: Mapping[int, BaseException], tried: int
    ) -> None:
        maybe_sent = any(isinstance(error, PublishError) and error.maybe_sent for error in failed.values())
        super().__init__(message, maybe_sent=maybe_sent)
        self.results = results
        self.failed = failed
        self.tried = tried


class ProtocolError(AioretryqError, ValueError):
    """These bytes are not what the protocol says they should be."""


class ContentDisallowed(ProtocolError):
    """The message's serializer is not in `accept_content`."""


class EncodeError(AioretryqError, TypeError):
    """A value cannot be serialised."""


class PayloadTooLarge(EncodeError):
    """A message or result is larger than `max_payload_bytes`."""


class ResultTimeout(AioretryqError, TimeoutError):
    """The result was not ready in time. The task itself is not affected."""


class IncompleteStream(AioretryqError):
    """A task is not done, so nobody knows all of its children yet; wait for it, or ask for what is known."""


class NotRegistered(AioretryqError, KeyError):
    """No task of that name is registered."""

    def __str__(self) -> str:  # KeyError would show the repr
        return str(self.args[0]) if self.args else "task is not registered"


class TaskPredicate(AioretryqError):
    """Raised in a task to decide what becomes of it. Not an error."""


class Retry(TaskPredicate):
    """Run this task again later. Raise it, or call `task.retry()`, which builds and raises it.

    `when` is seconds from now or an aware datetime; None takes the delay of the task's retry policy.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | None = None,
        when: float | datetime | None = None,
        *,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        max_retries: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, exc, when)
        self.message = message
        self.exc = exc
        self.when = when
        self.new_args = args
        self.new_kwargs = kwargs
        self.max_retries = max_retries
        self.options = options or {}

    def __str__(self) -> str:
        wait = f"Retry in {self.when}s" if isinstance(self.when, int | float) else f"Retry at {self.when}"
        if self.when is None:
            wait = "Retry"
        cause = self.message or (repr(self.exc) if self.exc is not None else "")
        return f"{wait}: {cause}" if cause else wait


class Ignore(TaskPredicate):
    """Acknowledge the message and store no result."""


class Replaced(Ignore):
    """Another call, or a workflow (`node`), does this task's work: raised by `task.replace(signature)`."""

    def __init__(self, node: Node) -> None:
        super().__init__(f"replaced by {node.task}")
        self.node = node


class Reject(TaskPredicate):
    """Give the message up: to the dead letters, or with `requeue=True` back to its queue."""

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        super().__init__(reason, requeue)
        self.reason = reason
        self.requeue = requeue

    def __str__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class MaxRetriesExceededError(AioretryqError):
    """The task asked for one more retry than it may have."""


class TaskRevokedError(AioretryqError):
    """The task was revoked or has expired; the first argument says which."""


class ChordError(AioretryqError):
    """A part of a chord's header has failed, or its body could not be sent: the result of the body."""


class TimeLimitExceeded(AioretryqError):
    """The task ran longer than its `time_limit` and was cancelled."""


class SoftTimeLimitExceeded(AioretryqError):
    """The task has run longer than its `soft_time_limit`: raised inside of it, so that it can end in its own way."""


class WorkerLostError(AioretryqError):
    """The task was given to several workers, and each died with it or lost its lease (`task_max_deliveries`)."""


class UnknownDeadLetter(AioretryqError, LookupError):
    """There is no dead letter of that id (any more), or there are several whose ids begin like that."""


class RemoteTaskError(AioretryqError):
    """A task failed with an exception whose class is not loaded in this process.

    The class you catch is a subclass named like the original (`type(exc).__name__`), with the original
    arguments in `args` and the module it came from in `module`.
    """

    module: str = ""
