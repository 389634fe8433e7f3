"""From a call to a message: pure, so that what goes over the wire can be seen without one."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, runtime_checkable

from msgspec import Struct

from aioretryq.errors import ConfigError, UnknownSettingError, did_you_mean
from aioretryq.message import TaskMessage
from aioretryq.protocol import compression
from aioretryq.protocol.content import content_type_of
from aioretryq.protocol.security import security_for
from aioretryq.protocol.task import format_moment, saferepr
from aioretryq.rates import check_limits
from aioretryq.routing import NO_ROUTE, Route, route
from aioretryq.topology import topology_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aioretryq.config import Settings
    from aioretryq.context import Request
    from aioretryq.message import Signature
    from aioretryq.task import Task
    from aioretryq.topology import Address

ORIGIN = f"gen{os.getpid()}@{socket.gethostname()}"
REPLY_TO = str(uuid.uuid4())
"""Names this process to senders of results that do not go through a backend; required by the protocol."""


class CallOptions(Struct, frozen=True, kw_only=True):
    """Options of one call, by Celery's names. None takes the task's option, then the route's, then the default."""

    countdown: float | None = None
    eta: datetime | None = None
    expires: float | datetime | timedelta | None = None
    queue: str | None = None
    exchange: str | None = None
    exchange_type: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    task_id: str | None = None
    headers: Mapping[str, Any] | None = None
    ignore_result: bool | None = None
    serializer: str | None = None
    compression: str | None = None
    shadow: str | None = None
    route_name: str | None = None
    """The name that `task_routes` is asked for, where it is another one: of a task that calls others."""
    time_limit: float | None = None
    soft_time_limit: float | None = None
    reply_to: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    link: Any = None
    link_error: Any = None
    chain: list[Signature] | None = None
    chord: Signature | None = None
    group_id: str | None = None
    group_index: int | None = None
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: Mapping[str, Any] | None = None
    """Values of the `stamped_headers`; Celery's spelling is an option for each of them."""
    retry: bool | None = None
    retry_policy: Mapping[str, Any] | None = None
    timeout: float | None = None
    wait: float | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], whose: str) -> CallOptions:
        known = set(cls.__struct_fields__)
        _check_types({name: options[name] for name in ("stamps", "stamped_headers") if name in options}, whose)
        options = _with_stamps(options)
        for name in options:
            if name not in known:
                raise UnknownSettingError(f"A call of {whose} has no option {name!r}.{did_you_mean(name, known)}")
        made = cls(**options)
        _check_times(made, whose)
        if made.countdown is not None and made.eta is not None:
            raise ConfigError(f"A call of {whose} takes countdown or eta, not both.")
        _check_types(options, whose)
        if made.priority is not None and not (type(made.priority) is int and 0 <= made.priority <= 9):
            raise ConfigError(f"A call of {whose}: priority is 0 (first) to 9, not {made.priority!r}.")
        for name in ("link", "link_error", "chain", "chord"):
            if not _are_signatures(getattr(made, name)):
                raise ConfigError(f"A call of {whose}: {name} takes signatures, not {getattr(made, name)!r}.")
        return made


@runtime_checkable
class Callee(Protocol):
    """What says itself how it is called later: a task, also one of Celery's."""

    def signature(self) -> Mapping[str, Any]: ...


Link = Callee | Mapping[str, Any]
"""What may follow from a call: a task, or a signature as a dictionary."""


class CallKeywords(TypedDict, total=False):
    """What a type checker knows of `CallOptions`, as keywords of whoever is called."""

    countdown: float | None
    eta: datetime | None
    expires: float | datetime | timedelta | None
    queue: str | None
    exchange: str | None
    exchange_type: str | None
    routing_key: str | None
    priority: int | None
    task_id: str | None
    headers: Mapping[str, Any] | None
    ignore_result: bool | None
    serializer: str | None
    compression: str | None
    shadow: str | None
    route_name: str | None
    time_limit: float | None
    soft_time_limit: float | None
    reply_to: str | None
    root_id: str | None
    parent_id: str | None
    link: Link | Sequence[Link] | None
    link_error: Link | Sequence[Link] | None
    chain: Link | Sequence[Link] | None
    chord: Link | None
    group_id: str | None
    group_index: int | None
    replaced_task_nesting: int
    stamped_headers: Sequence[str] | None
    stamps: Mapping[str, Any] | None
    retry: bool | None
    retry_policy: Mapping[str, Any] | None
    timeout: float | None
    wait: float | None


_MOMENTS = ("eta", "expires")
_OF_THE_SENDER = frozenset("retry retry_policy timeout wait stamps".split())


def options_of_signature(options: Mapping[str, Any], whose: str) -> CallOptions:
    """Options that came inside a message: what means nothing here is left out, times may be texts.

    Raises ConfigError for values that cannot be.
    """
    known = set(CallOptions.__struct_fields__) - _OF_THE_SENDER
    known.update(options.get("stamped_headers") or ())
    taken = {name: value for name, value in options.items() if name in known and value is not None}
    for name in _MOMENTS:
        if isinstance(taken.get(name), str):
            try:
                taken[name] = datetime.fromisoformat(taken[name])
            except ValueError:
                raise ConfigError(f"A call of {whose}: {name} is not a time: {taken[name]!r}.") from None
    if "countdown" in taken:
        taken.pop("eta", None)  # as in Celery, which takes the first that it finds
    return CallOptions.of(taken, whose)


def check_stamps(names: Iterable[str], whose: str) -> None:
    """ConfigError for a stamp that would be taken for an option: in signatures, stamps are options themselves."""
    if taken := sorted(name for name in names if name in CallOptions.__struct_fields__):
        raise ConfigError(f"A call of {whose}: no stamp can be called {taken[0]!r}, an option of calls. Rename it.")


def _with_stamps(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Stamps as one option, where they are options of their own, as in Celery; named, where they are not."""
    given, named = options.get("stamps") or {}, options.get("stamped_headers") or ()
    own = [name for name in named if name in options]
    if not (given or own):
        return options
    stamps = {**given, **{name: options[name] for name in own}}
    made = {name: value for name, value in options.items() if name not in own}
    return {**made, "stamps": stamps, "stamped_headers": [*named, *(name for name in given if name not in named)]}


def _are_signatures(value: Any) -> bool:
    found = value if isinstance(value, list | tuple) else [value]
    return value is None or all(isinstance(each, Mapping) for each in found)


def signatures(value: Any) -> list[Signature] | None:
    """The option `link`, `link_error` or `chain`, which may be one signature or several, as it travels."""
    if value is None:
        return None
    return [dict(each) for each in (value if isinstance(value, list | tuple) else [value])]


_SECONDS = (int, float)
_TIMES: dict[str, Any] = {
    "countdown": _SECONDS,
    "eta": datetime,
    "expires": (*_SECONDS, datetime, timedelta),
    "timeout": _SECONDS,
    "wait": _SECONDS,
    "time_limit": _SECONDS,
    "soft_time_limit": _SECONDS,
}


_TEXTS = frozenset(
    "task_id queue exchange exchange_type routing_key route_name shadow reply_to root_id parent_id group_id".split()
)
_NOT_EMPTY = frozenset("task_id queue reply_to root_id parent_id group_id".split())
_OTHERS: dict[str, tuple[Any, str]] = {
    "ignore_result": (bool, "true or false"),
    "replaced_task_nesting": (int, "a number"),
    "headers": (Mapping, "a dictionary"),
    "stamped_headers": ((list, tuple), "a list of names"),
    "stamps": (Mapping, "a dictionary"),
    "retry_policy": (Mapping, "a dictionary"),
}


def _check_types(options: Mapping[str, Any], whose: str) -> None:
    """Of what would make a message that no worker can read."""
    for name, value in options.items():
        if value is None:
            continue
        if name in _TEXTS and not (isinstance(value, str) and is_text(value) and (value or name not in _NOT_EMPTY)):
            raise ConfigError(f"A call of {whose}: {name} is a text, not {value!r}.")
        if name in _OTHERS and not isinstance(value, _OTHERS[name][0]):
            raise ConfigError(f"A call of {whose}: {name} is {_OTHERS[name][1]}, not {value!r}.")
        if name == "stamped_headers" and not all(isinstance(each, str) for each in value):
            raise ConfigError(f"A call of {whose}: {name} are names, not {value!r}.")
        if name == "group_index" and not (type(value) is int and abs(value) < 2**53):  # scores in Redis are doubles
            raise ConfigError(f"A call of {whose}: {name} is a number, not {value!r}.")


def _check_times(options: CallOptions, whose: str) -> None:
    for option, types in _TIMES.items():
        value = getattr(options, option)
        if value is not None and not isinstance(value, types):
            raise ConfigError(f"A call of {whose}: {option} is not a time: {value!r}.")
    for option in ("timeout", "wait"):
        value = getattr(options, option)
        if value is not None and not value >= 0:  # nan, too
            raise ConfigError(f"A call of {whose}: {option} is a number of seconds, at least 0; not {value!r}.")
    check_limits(options.time_limit, options.soft_time_limit, f"A call of {whose}")


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
    routed = route(settings.task_routes, options.route_name or name, args, kwargs, options)
    address = _address(options, task, routed, settings)
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
        exchange=address.exchange,
        exchange_type=address.kind,
        routing_key=address.routing_key,
        priority=_priority(options, task, routed, settings, caller),
        content_type=content_type_of(
            _first(options.serializer, task.serializer if task else None, settings.task_serializer)
        ),
        compression=_compression(options, task, settings),
        security=security_for(settings),
        **_workflow(options),
    )


def _priority(
    options: CallOptions, task: Task[Any, Any] | None, routed: Route, settings: Settings, caller: Request | None
) -> int:
    found: int = _first(
        options.priority,
        task.priority if task else None,
        routed.priority,
        _inherited_priority(options, settings, caller),
        settings.task_default_priority,
    )
    return found


def _inherited_priority(options: CallOptions, settings: Settings, caller: Request | None) -> int | None:
    """Of a call that a task makes, with `task_inherit_parent_priority`. As in Celery, not if it names its parents."""
    if caller is None or not settings.task_inherit_parent_priority or (options.root_id and options.parent_id):
        return None
    return caller.delivery_info.get("priority")


def _workflow(options: CallOptions) -> dict[str, Any]:
    """What the message says of the workflow it belongs to."""
    return {
        "callbacks": signatures(options.link),
        "errbacks": signatures(options.link_error),
        "chain": signatures(options.chain),
        "chord": None if options.chord is None else dict(options.chord),
        "group": options.group_id,
        "group_index": options.group_index,
        "replaced_task_nesting": options.replaced_task_nesting,
        "stamped_headers": None if options.stamped_headers is None else list(options.stamped_headers),
        "stamps": dict(options.stamps or {}),
    }


def _address(options: CallOptions, task: Task[Any, Any] | None, routed: Route, settings: Settings) -> Address:
    topology = topology_of(settings)
    own = Route(task.queue, exchange=task.exchange, routing_key=task.routing_key) if task else NO_ROUTE
    if all(each.exchange is each.routing_key is None for each in (options, own, routed)):  # nearly always
        return topology.to_queue(_first(options.queue, own.queue, routed.queue))
    asked = Route(
        options.queue,
        exchange=options.exchange,
        exchange_type=options.exchange_type,
        routing_key=options.routing_key,
    )
    return topology.address([asked, own, routed])


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


def _compression(options: CallOptions, task: Task[Any, Any] | None, settings: Settings) -> str | None:
    wanted = _first(options.compression, task.compression if task else None, settings.task_compression)
    return None if wanted is None else compression.checked(wanted)
