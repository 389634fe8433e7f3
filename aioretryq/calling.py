"""From a call to a message: pure, so that what goes over the wire can be seen without one."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from aioretryq.errors import ConfigError, UnknownSettingError, did_you_mean
from aioretryq.message import TaskMessage
from aioretryq.protocol.task import CONTENT_TYPES, format_moment, saferepr
from aioretryq.routing import route

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aioretryq.config import Settings
    from aioretryq.context import Request
    from aioretryq.task import Task

ORIGIN = f"gen{os.getpid()}@{socket.gethostname()}"
REPLY_TO = str(uuid.uuid4())
"""Names this process to senders of results that do not go through a backend; required by the protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """Options of one call, by Celery's names. None takes the task's option, then the route's, then the default."""

    countdown: float | None = None
    eta: datetime | None = None
    expires: float | datetime | timedelta | None = None
    queue: str | None = None
    priority: int | None = None
    task_id: str | None = None
    headers: Mapping[str, Any] | None = None
    ignore_result: bool | None = None
    serializer: str | None = None
    shadow: str | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    reply_to: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    retry: bool | None = None
    retry_policy: Mapping[str, Any] | None = None
    timeout: float | None = None
    wait: float | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], whose: str) -> CallOptions:
        known = {field.name for field in fields(cls)}
        for name in options:
            if name not in known:
                raise UnknownSettingError(f"A call of {whose} has no option {name!r}.{did_you_mean(name, known)}")
        made = cls(**options)
        _check_times(made, whose)
        if made.countdown is not None and made.eta is not None:
            raise ConfigError(f"A call of {whose} takes countdown or eta, not both.")
        for name in ("task_id", "queue"):
            value = getattr(made, name)
            if value is not None and not (isinstance(value, str) and is_text(value)):
                raise ConfigError(f"A call of {whose}: {name} is a text, not {value!r}.")
        if made.priority is not None and not (type(made.priority) is int and 0 <= made.priority <= 9):
            raise ConfigError(f"A call of {whose}: priority is 0 (first) to 9, not {made.priority!r}.")
        return made


_SECONDS = (int, float)
_TIMES: dict[str, Any] = {
    "countdown": _SECONDS,
    "eta": datetime,
    "expires": (*_SECONDS, datetime, timedelta),
    "timeout": _SECONDS,
    "wait": _SECONDS,
}


def _check_times(options: CallOptions, whose: str) -> None:
    for option, types in _TIMES.items():
        value = getattr(options, option)
        if value is not None and not isinstance(value, types):
            raise ConfigError(f"A call of {whose}: {option} is not a time: {value!r}.")
    for option in ("timeout", "wait"):
        value = getattr(options, option)
        if value is not None and not value >= 0:  # nan, too
            raise ConfigError(f"A call of {whose}: {option} is a number of seconds, at least 0; not {value!r}.")


def is_text(value: str) -> bool:
    """Whether it can be a key or an id anywhere: no lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def compose(
    name: str,
    arguments: tuple[Sequence[Any], Mapping[str, Any]],
    options: CallOptions,
    *,
    task: Task[Any, Any] | None,
    settings: Settings,
    caller: Request | None,
    now: float,
) -> TaskMessage:
    """The message of a call. `caller` is the request of the task that makes it, if one does."""
    args, kwargs = arguments
    task_id = options.task_id or str(uuid.uuid4())
    routed = route(settings.task_routes, name, args, kwargs, options)
    expires = options.expires if options.expires is not None else (task.expires if task else None)
    expires_at, expiration = _expiry(expires, now)
    shadow = options.shadow
    if shadow is None and task is not None and task.shadow_name is not None:
        shadow = task.shadow_name(args, kwargs, options)
    return TaskMessage(
        id=task_id,
        task=name,
        args=list(args),
        kwargs=dict(kwargs),
        eta=_eta(options, now),
        expires=expires_at,
        expiration=expiration,
        root_id=options.root_id or (caller.root_id if caller else None) or task_id,
        parent_id=options.parent_id or (caller.id if caller else None),
        time_limit=_first(options.time_limit, task.time_limit if task else None),
        soft_time_limit=_first(options.soft_time_limit, task.soft_time_limit if task else None),
        ignore_result=_first(options.ignore_result, task.ignore_result if task else None),
        shadow=shadow,
        argsrepr=saferepr(tuple(args)),
        kwargsrepr=saferepr(dict(kwargs)),
        origin=ORIGIN,
        headers=dict(options.headers or {}),
        reply_to=options.reply_to or REPLY_TO,
        correlation_id=task_id,
        routing_key=_first(options.queue, task.queue if task else None, routed.queue, settings.task_default_queue),
        priority=_first(
            options.priority, task.priority if task else None, routed.priority, settings.task_default_priority
        ),
        content_type=_content_type(options.serializer or (task.serializer if task else None), settings),
    )


def _first(*candidates: Any) -> Any:
    return next((candidate for candidate in candidates if candidate is not None), None)


def _eta(options: CallOptions, now: float) -> str | None:
    if options.countdown is not None:
        return format_moment(now + options.countdown)
    return options.eta.isoformat() if options.eta is not None else None


def _expiry(expires: float | datetime | timedelta | None, now: float) -> tuple[str | None, str | None]:
    """(header, message property): a point in time, and the milliseconds until then."""
    if expires is None:
        return None, None
    if isinstance(expires, datetime):
        aware = expires if expires.tzinfo else expires.replace(tzinfo=UTC)
        return expires.isoformat(), str(max(0, int((aware.timestamp() - now) * 1000)))
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else float(expires)
    return format_moment(now + seconds), str(int(seconds * 1000))


def _content_type(serializer: str | None, settings: Settings) -> str:
    wanted = serializer or settings.task_serializer
    if wanted not in CONTENT_TYPES:
        raise ConfigError(f"There is no serializer {wanted!r}; known are {', '.join(sorted(CONTENT_TYPES))}.")
    return CONTENT_TYPES[wanted]
