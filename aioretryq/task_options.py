"""Options of tasks: their names, defaults and types, and what their values may be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from aioretryq import config
from aioretryq.errors import ConfigError, UnknownSettingError, did_you_mean
from aioretryq.lazy import Lazy
from aioretryq.rates import check_limits, check_rate

if TYPE_CHECKING:
    from aioretryq.celery_settings import options as celerys
    from aioretryq.task import Task
else:
    celerys = Lazy("aioretryq.celery_settings.options")

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
    "exchange": None,
    "routing_key": None,
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


class FromSetting:
    """An option that a task has of its queue's settings, unless it is given: what is asked for in every run has to be
    found fast. A class does not have it (AttributeError)."""

    def __init__(self, setting: str) -> None:
        self._setting = setting

    def __get__(self, task: Task[..., Any] | None, owner: type) -> Any:
        if task is None:
            raise AttributeError(f"{owner.__name__} says nothing of it: {self._setting} is a setting of a queue")
        return getattr(task._app().conf, self._setting)


Seconds = float | timedelta
_Exceptions = type[BaseException] | Collection[type[BaseException]]


class TaskOptions(TypedDict, total=False):
    """What a type checker knows of the keywords of `@queue.task`: the options, and how the task is made."""

    name: str
    base: type[Task[..., Any]]
    max_retries: int | None
    default_retry_delay: Seconds
    autoretry_for: _Exceptions
    dont_autoretry_for: _Exceptions
    retry_kwargs: Mapping[str, Any]
    retry_backoff: bool | Seconds
    retry_backoff_max: Seconds
    retry_jitter: bool
    throws: _Exceptions
    queue: str | None
    exchange: str | None
    routing_key: str | None
    priority: int | None
    expires: Seconds | datetime | None
    serializer: str | None
    compression: str | None
    shadow_name: Callable[..., str | None] | None
    trail: bool
    send_events: bool
    acks_late: bool
    dead_letter: bool | Collection[str]
    max_deliveries: int
    ignore_result: bool
    store_errors_even_if_ignored: bool
    time_limit: Seconds | None
    soft_time_limit: Seconds | None
    rate_limit: str | float | None
    track_started: bool


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
CHECKED = (*_EXCEPTIONS, "max_retries", "retry_kwargs", "retry_backoff", "retry_backoff_max", "default_retry_delay")
"""Those that are checked also where a class brings them."""


def check_option(option: str, value: Any, task: str) -> Any:
    """The value of a task option as it is kept, or ConfigError."""
    if option not in _KNOWN and option in celerys.TASK_OPTIONS:
        note = celerys.TASK_OPTIONS[option].note
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
    check_limits(options.get("time_limit"), options.get("soft_time_limit"), whose)


def _is_duration(value: Any) -> bool:
    return isinstance(value, timedelta) or (isinstance(value, int | float) and value >= 0)


def check_options(options: Mapping[str, Any], known: Collection[str], whose: str) -> None:
    for option in options:
        if option not in known:
            raise UnknownSettingError(f"{whose} has no option {option!r}.{did_you_mean(option, known)}")
        if option in ("exchange", "routing_key") and not isinstance(options[option], str | None):
            raise ConfigError(f"{whose}: {option} is a text, not {options[option]!r}.")
