"""What `task_queues` declares: queues with their exchanges, and broadcasts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aioretryq.errors import ConfigError

DIRECT, TOPIC, FANOUT = "direct", "topic", "fanout"
KINDS = (DIRECT, TOPIC, FANOUT)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue, and with which routing key it is bound to which exchange. What is None comes from the settings.

    In a topic exchange the routing key is a pattern: `*` is one word, `#` any number of words. With `expires` the
    queue goes away when no worker has used it for so many seconds.
    """

    name: str
    exchange: str | None = None
    exchange_type: str = DIRECT
    routing_key: str | None = None
    expires: float | None = None

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A fanout exchange: every worker that takes it as one of its queues runs every task that is sent to it.

    `name` is what calls, routes and `-Q` call it. The exchange has the same name unless it is given.
    """

    name: str
    exchange: str = ""
    routing_key: str | None = None

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "exchange", self.exchange or self.name)


def _check(made: Queue | Broadcast) -> None:
    if not isinstance(made.name, str) or not made.name:
        raise ConfigError(f"A queue has a name, not {made.name!r}.")
    for name in ("exchange", "routing_key"):
        value = getattr(made, name)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"Queue {made.name!r}: {name} is a text, not {value!r}.")
    if isinstance(made, Broadcast):
        return
    if made.exchange_type not in (DIRECT, TOPIC):
        hint = "use Broadcast(name)" if made.exchange_type == FANOUT else f"use {DIRECT} or {TOPIC}"
        raise ConfigError(f"Queue {made.name!r}: there is no exchange_type {made.exchange_type!r} here; {hint}.")
    expires = made.expires
    if expires is not None and not (isinstance(expires, int | float) and expires > 0):
        raise ConfigError(f"Queue {made.name!r}: expires is a number of seconds, not {expires!r}.")


def read_queues(value: Any) -> tuple[Queue | Broadcast, ...]:
    """`task_queues`: names, `Queue` and `Broadcast` (also kombu's), or dicts of options; a mapping is by name."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        found = [_read_options(str(name), options) for name, options in value.items()]
    elif isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"task_queues is a list of names, Queue(...) and Broadcast(...), not {value!r}.")
    else:
        found = [_read(each) for each in value]
    names = [each.name for each in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"task_queues has {', '.join(twice)} twice.")
    return tuple(found)


def _read(value: Any) -> Queue | Broadcast:
    if isinstance(value, Queue | Broadcast):
        return value
    if isinstance(value, str):
        return Queue(value)
    if isinstance(value, Mapping):
        return _read_options(str(value.get("name") or ""), {k: v for k, v in value.items() if k != "name"})
    if hasattr(value, "exchange") and hasattr(value, "routing_key") and hasattr(value, "name"):
        return _read_kombu(value)
    raise ConfigError(f"task_queues holds names, Queue(...) and Broadcast(...), not {value!r}.")


_IGNORED = ("max_priority", "arguments", "queue_arguments", "durable", "auto_delete", "delivery_mode")
_OPTIONS = ("exchange", "exchange_type", "routing_key", "expires")


def _read_options(name: str, options: Any) -> Queue | Broadcast:
    if not isinstance(options, Mapping):
        return _read(options)
    given = {key: value for key, value in options.items() if key not in _IGNORED}
    if "binding_key" in given:
        given.setdefault("routing_key", given.pop("binding_key"))
    if unknown := sorted(str(key) for key in given if key not in _OPTIONS):
        raise ConfigError(f"Queue {name!r} in task_queues has no option {', '.join(unknown)}.")
    if given.get("exchange_type") == FANOUT:
        return Broadcast(name, given.get("exchange") or "", given.get("routing_key"))
    return Queue(name, **given)


def _read_kombu(value: Any) -> Queue | Broadcast:
    if getattr(value, "bindings", None):
        raise ConfigError(
            f"task_queues: {value.name} with a list of bindings; a queue has one exchange here. Make it a queue for "
            "each of them, and serve them all."
        )
    exchange = value.exchange
    kind = getattr(exchange, "type", None) or DIRECT
    name = getattr(exchange, "name", None) or None
    if kind == FANOUT:
        # kombu's own Broadcast makes up the name of its queue for each worker; what it is called is its alias.
        return Broadcast(getattr(value, "alias", None) or value.name, name or "", value.routing_key or None)
    return Queue(value.name, name, kind, value.routing_key or None, getattr(value, "expires", None))
