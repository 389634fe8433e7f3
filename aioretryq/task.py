"""Tasks: a function with a name, its options, and the ways to call it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, ParamSpec, TypeVar

from aioretryq import config, eager
from aioretryq.celery_settings.options import TASK_OPTIONS
from aioretryq.context import Request, current_run
from aioretryq.errors import ConfigError, MaxRetriesExceededError, Retry, UnknownSettingError, did_you_mean
from aioretryq.rates import check_rate
from aioretryq.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.execution import ExceptionInfo
    from aioretryq.result import AsyncResult, EagerResult

P = ParamSpec("P")
R = TypeVar("R")

OPTIONS: dict[str, Any] = {
    "max_retries": 3,
    "default_retry_delay": 180.0,
    "autoretry_for": (),
    "dont_autoretry_for": (),
    "retry_kwargs": {},
    "retry_backoff": False,
    "retry_backoff_max": 600.0,
    "retry_jitter": True,
    "throws": (),
    "queue": None,
    "priority": None,
    "expires": None,
    "serializer": None,
    "compression": None,
    "shadow_name": None,
    "trail": True,
    "send_events": True,
}
"""Options of a task and their defaults, by Celery's names."""

FROM_SETTINGS = {
    "acks_late": "task_acks_late",
    "dead_letter": "task_dead_letter",
    "ignore_result": "task_ignore_result",
    "max_deliveries": "task_max_deliveries",
    "rate_limit": "task_default_rate_limit",
    "soft_time_limit": "task_soft_time_limit",
    "store_errors_even_if_ignored": "task_store_errors_even_if_ignored",
    "time_limit": "task_time_limit",
    "track_started": "task_track_started",
}
"""Options whose default is a setting."""

HOOKS = ("before_start", "on_success", "on_retry", "on_failure", "after_return")


class _Done:
    """What a hook that does nothing returns: may be awaited, need not be."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


DONE = _Done()


class Task(Generic[P, R]):
    """A function and how it is to be called. Made by `@queue.task`; subclass it and pass `base=` for hooks.

    Options are attributes: what the decorator was given, else what the class says, else the default or
    setting. A task has no per-call state; the run that is going on is `self.request`.
    """

    name: str = ""
    bind: bool = False

    max_retries: int | None
    default_retry_delay: float
    autoretry_for: tuple[type[BaseException], ...]
    dont_autoretry_for: tuple[type[BaseException], ...]
    retry_kwargs: Mapping[str, Any]
    retry_backoff: bool | float
    retry_backoff_max: float
    retry_jitter: bool
    throws: tuple[type[BaseException], ...]
    queue: str | None
    priority: int | None
    expires: float | datetime | None
    serializer: str | None
    compression: str | None
    shadow_name: Callable[..., str | None] | None
    trail: bool
    send_events: bool
    acks_late: bool
    dead_letter: bool | tuple[str, ...]
    max_deliveries: int
    ignore_result: bool
    store_errors_even_if_ignored: bool
    time_limit: float | None
    soft_time_limit: float | None
    rate_limit: str | float | None
    track_started: bool

    MaxRetriesExceededError: ClassVar[type[MaxRetriesExceededError]] = MaxRetriesExceededError

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        app: Callable[[], TaskQueue],
        bind: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.bind = bind
        self.function = function
        self.is_coroutine = inspect.iscoroutinefunction(function)
        self.signature = inspect.signature(function)
        self._app = app
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self.__wrapped__ = function
        inherited = {option: getattr(type(self), option) for option in _CHECKED if hasattr(type(self), option)}
        for option, value in {**inherited, **(options or {})}.items():
            setattr(self, option, check_option(option, value, name))
        self.hooks = frozenset(hook for hook in HOOKS if getattr(type(self), hook) is not getattr(Task, hook))

    if not TYPE_CHECKING:  # mypy then still flags misspelt attributes

        def __getattr__(self, name: str) -> Any:
            if name in OPTIONS:
                return OPTIONS[name]
            if name in FROM_SETTINGS:
                return getattr(self.app.conf, FROM_SETTINGS[name])
            raise AttributeError(f"Task {self.name!r} has no attribute {name!r}.{did_you_mean(name, OPTIONS)}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def app(self) -> TaskQueue:
        """The queue this task belongs to; of a shared task, the current one."""
        return self._app()

    # -- running

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Simply call the function: no queue, no retries."""
        value: R = self.run(*args, **kwargs)
        return value

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The body. Wrap it in a subclass to do something around every run (return what `super()` returns)."""
        return self.function(self, *args, **kwargs) if self.bind else self.function(*args, **kwargs)

    @property
    def request(self) -> Request:
        """The run of this task that is going on here; outside of one, a request with `called_directly`."""
        run = current_run.get()
        return run.request if run is not None and run.task is self else Request(called_directly=True)

    # -- calling

    async def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task with these arguments. See `apply_async`."""
        return await self.apply_async(args, kwargs)

    async def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Send the task; returns when the broker has it. Options are those of `TaskQueue.send_task`.

        Raises TypeError for arguments the function does not take, EncodeError for such that cannot be
        serialised, PublishError when the broker has not confirmed the task (`maybe_sent` says what is known).
        Cancelled, the task may or may not have been sent.
        """
        self.check_arguments(args or (), kwargs or {})
        return await self.app.send(self.name, args, kwargs, task=self, options=options)

    async def apply(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> EagerResult[R]:
        """Run the task here and now, through all its retries, without a broker.

        The waits between retries are skipped unless `sleep=anyio.sleep` is given. With `throw=True` the
        task's exception is raised.
        """
        self.check_arguments(args or (), kwargs or {})
        return await eager.apply(self, args or (), kwargs or {}, options)

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """TypeError, naming the task, if the function cannot be called with these."""
        try:
            self.signature.bind(*((self, *args) if self.bind else args), **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}{self.signature} cannot be called so: {error}") from None

    # -- retrying

    @property
    def retry_policy(self) -> RetryPolicy:
        """The schedule of this task's retries; `retry_policy.preview()` lists it."""
        return RetryPolicy(
            max_retries=self.retry_kwargs.get("max_retries", self.max_retries),
            delay=self.retry_kwargs.get("countdown", self.default_retry_delay),
            backoff=self.retry_backoff,
            backoff_max=self.retry_backoff_max,
            jitter=self.retry_jitter,
        )

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        *,
        throw: bool = True,
        countdown: float | None = None,
        eta: datetime | None = None,
        **options: Any,
    ) -> Retry:
        """Ask for another run of this task: raises Retry, so nothing after the call is executed.

        `countdown` (seconds) or `eta` win over the task's schedule. `max_retries=` overrides the task's for
        this decision. When no retry is left, `exc` is raised, or MaxRetriesExceededError without one.
        Called outside of a worker it raises `exc`. With `throw=False` the Retry is returned for you to raise.
        Other options: `queue`, `priority`, `expires`, `time_limit`, `soft_time_limit`, `headers`.
        """
        request = self.request
        limit = options.pop("max_retries", self.retry_policy.max_retries)
        if request.called_directly:
            raise exc or RuntimeError(f"{self.name}.retry() was called outside of a run of that task.")
        if limit is not None and request.retries >= limit:
            self._give_up(exc, limit)
        check_retry_options({**options, "countdown": countdown, "eta": eta}, f"{self.name}.retry()")
        retry = Retry(
            exc=exc,
            when=eta if eta is not None else countdown,
            args=None if args is None else tuple(args),
            kwargs=None if kwargs is None else dict(kwargs),
            max_retries=limit,
            options={name: value for name, value in options.items() if value is not None},
        )
        if throw:
            raise retry from exc
        return retry

    def _give_up(self, exc: BaseException | None, limit: int) -> NoReturn:
        if exc is not None:
            raise exc
        raise MaxRetriesExceededError(f"{self.name}[{self.request.id}] has used its {limit} retries.")

    async def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None) -> None:
        """Store a state of your own (such as PROGRESS, with `meta` as its result) for the running task."""
        if self.request.is_eager:
            return  # nothing is stored of an eager run
        await self.app.store_state(task_id or self.request.id or "", state or "PROGRESS", meta, self.request)

    def send_event(self, type_: str, **fields: Any) -> None:
        """Send an event of your own about the running task, such as `self.send_event("task-progress", percent=50)`.

        It is sent in the background, also while a worker sends no events of its own; nothing to wait for, and any
        thread may call it. EncodeError for fields that JSON cannot hold. Outside of a worker nothing is sent.
        """
        request = self.request
        if request.hostname is not None and not request.is_eager:
            self.app.connections.events.send(type_, request.hostname, {"uuid": request.id, **fields})

    # -- hooks: plain or async; errors in them are logged and change nothing

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> Awaitable[None]:
        """Called before each attempt."""
        return DONE

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> Awaitable[None]:
        return DONE

    def on_retry(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo | None
    ) -> Awaitable[None]:
        """Called for each attempt that will be tried again."""
        return DONE

    def on_failure(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo | None
    ) -> Awaitable[None]:
        """Called once, when no retry is left."""
        return DONE

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo | None
    ) -> Awaitable[None]:
        """Called after each attempt, whatever came of it."""
        return DONE


class AsyncTask(Task[P, R]):
    """A coroutine function's task: calling it gives an awaitable."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...  # type: ignore[override]


_NUMBER = (int, float)
RETRY_OPTIONS: dict[str, Any] = {
    "countdown": _NUMBER,
    "eta": datetime,
    "queue": str,
    "priority": int,
    "expires": (*_NUMBER, datetime, timedelta),
    "time_limit": _NUMBER,
    "soft_time_limit": _NUMBER,
    "headers": Mapping,
}
"""Options of `Task.retry()` and their types; None leaves the task's or the message's."""
_KNOWN = frozenset(OPTIONS) | frozenset(FROM_SETTINGS)
_EXCEPTIONS = ("autoretry_for", "dont_autoretry_for", "throws")
_CHECKED = (*_EXCEPTIONS, "max_retries", "retry_kwargs", "retry_backoff", "retry_backoff_max", "default_retry_delay")


def check_option(option: str, value: Any, task: str) -> Any:
    """The value of a task option as it is kept, or ConfigError."""
    if option in TASK_OPTIONS and option not in _KNOWN:
        note = TASK_OPTIONS[option].note
        raise UnknownSettingError(f"Task {task!r}: Celery's option {option!r} is not supported; remove it. {note}")
    check_options({option: value}, _KNOWN, f"Task {task!r}")
    if option in _EXCEPTIONS:
        classes = tuple(value) if isinstance(value, tuple | list | set | frozenset) else (value,)
        if not all(isinstance(cls, type) and issubclass(cls, BaseException) for cls in classes):
            raise ConfigError(f"Task {task!r}: {option} takes exception classes, not {value!r}.")
        return classes
    if option == "max_retries" and not (value is None or (isinstance(value, int) and value >= 0)):
        raise ConfigError(f"Task {task!r}: max_retries is a number, at least 0, or None for ever; not {value!r}.")
    if option == "retry_kwargs":
        return _check_retry_kwargs(value, task)
    if option == "priority" and value is not None and not (type(value) is int and 0 <= value <= 9):
        raise ConfigError(f"Task {task!r}: priority is a number from 0 (served first) to 9, not {value!r}.")
    if option == "rate_limit":
        return check_rate(value, f"Task {task!r}: rate_limit")
    if option in FROM_SETTINGS:
        return _check_as_setting(option, value, task)
    if option in ("retry_backoff", "retry_backoff_max", "default_retry_delay") and not _is_duration(value):
        raise ConfigError(f"Task {task!r}: {option} is a number of seconds, at least 0; not {value!r}.")
    return value.total_seconds() if isinstance(value, timedelta) else value


def _check_as_setting(option: str, value: Any, task: str) -> Any:
    try:
        return config.check(FROM_SETTINGS[option], value)
    except ConfigError as error:
        raise ConfigError(f"Task {task!r}, {option}: {error}") from None


def _check_retry_kwargs(value: Any, task: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"Task {task!r}: retry_kwargs is a dictionary of retry()'s options, not {value!r}.")
    whose = f"retry_kwargs of task {task!r}"
    check_options(value, {*RETRY_OPTIONS, "max_retries"}, whose)
    if "eta" in value:
        raise ConfigError(f"{whose}: eta would be the same moment for every retry; use countdown or retry_backoff.")
    check_retry_options({name: option for name, option in value.items() if name != "max_retries"}, whose)
    if "max_retries" in value:
        check_option("max_retries", value["max_retries"], task)
    return value


def check_retry_options(options: Mapping[str, Any], whose: str) -> None:
    check_options(options, RETRY_OPTIONS, whose)
    for option, value in options.items():
        if value is not None and not isinstance(value, RETRY_OPTIONS[option]):
            raise ConfigError(f"{whose}: {option} cannot be {value!r}.")


def _is_duration(value: Any) -> bool:
    return isinstance(value, timedelta) or (isinstance(value, int | float) and value >= 0)


def check_options(options: Mapping[str, Any], known: Collection[str], whose: str) -> None:
    for option in options:
        if option not in known:
            raise UnknownSettingError(f"{whose} has no option {option!r}.{did_you_mean(option, known)}")
