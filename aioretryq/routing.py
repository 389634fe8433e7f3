"""Which queue and priority a task is sent with: explicit option, then task, then `task_routes`, then default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioretryq.errors import ConfigError
from aioretryq.queues import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioretryq.message import Binding


class Route(Struct, frozen=True):
    """Where to; None leaves it to whoever asks next."""

    queue: str | None = None
    priority: int | None = None
    exchange: str | None = None
    exchange_type: str | None = None
    routing_key: str | None = None


NO_ROUTE = Route()


def route(routes: Any, task: str, args: Any = (), kwargs: Any = None, options: Any = None) -> Route:
    """The first of `routes` that has an answer for the task (celery/app/routes.py).

    `routes` is a mapping from names, globs (`app.tasks.*`) or compiled patterns to a queue name or
    `{"queue": ..., "priority": ...}`; a callable `(name, args, kwargs, options, task=None)` returning the
    same or None; or a list of mappings, callables and `(pattern, target)` pairs.
    """
    if routes is None:
        return NO_ROUTE
    if isinstance(routes, Mapping):
        return _from_pairs(routes.items(), task)
    if callable(routes):
        return _target(routes(task, args, kwargs or {}, options or {}, task=None))
    for entry in routes:
        if isinstance(entry, tuple) and len(entry) == 2:
            found = _from_pairs([entry], task)
        else:
            found = route(entry, task, args, kwargs, options)
        if found is not NO_ROUTE:
            return found
    return NO_ROUTE


def check_routes(routes: Any) -> None:
    """Raise ConfigError where `route()` would not know what to do with `task_routes`."""
    if routes is None or callable(routes):
        return
    if isinstance(routes, Mapping):
        for target in routes.values():
            _target(target)
        return
    if isinstance(routes, str):
        raise ConfigError(f"task_routes: {routes!r} is the name of a router. Import it, and give the router itself.")
    if not isinstance(routes, list | tuple):
        raise ConfigError(f"task_routes must be a dict, a callable or a list of those, not {routes!r}.")
    for entry in routes:
        check_routes(dict([entry]) if isinstance(entry, tuple) and len(entry) == 2 else entry)


def _from_pairs(pairs: Any, task: str) -> Route:
    for pattern, target in pairs:
        if isinstance(pattern, re.Pattern):
            if pattern.match(task):
                return _target(target)
        elif pattern == task or fnmatchcase(task, pattern):
            return _target(target)
    return NO_ROUTE


def _target(target: Any) -> Route:
    if target is None:
        return NO_ROUTE
    if isinstance(target, str):
        return Route(queue=target)
    if isinstance(target, Mapping) and set(target) <= _ROUTE:
        priority = target.get("priority")
        if priority is not None and not (type(priority) is int and 0 <= priority <= 9):
            raise ConfigError(f"A route's priority is a number from 0 (served first) to 9, not {priority!r}.")
        kind = target.get("exchange_type")
        if kind is not None and kind not in KINDS:
            raise ConfigError(f"A route's exchange_type is one of {', '.join(KINDS)}, not {kind!r}.")
        return Route(target.get("queue"), priority, target.get("exchange"), kind, target.get("routing_key"))
    known = ", ".join(sorted(_ROUTE))
    raise ConfigError(f"A route must be a queue name or a dict with {known}, not {target!r}.")


_ROUTE = frozenset({"queue", "priority", "exchange", "exchange_type", "routing_key"})


# -- exchanges


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Whether a topic exchange's pattern admits the key: `*` is one word, `#` any number of them, none included."""
    if pattern == "#" or pattern == routing_key:
        return True
    return _words_match(pattern.split(".") if pattern else [], routing_key.split(".") if routing_key else [])


def _words_match(pattern: list[str], words: list[str]) -> bool:
    # How many of the words may be used up by now. Trying out what each # may stand for would take for ever.
    used = {0}
    for part in pattern:
        if part == "#":
            used = set(range(min(used), len(words) + 1))
        else:
            used = {n + 1 for n in used if n < len(words) and part in ("*", words[n])}
        if not used:
            return False
    return len(words) in used


def targets(bindings: Iterable[Binding], routing_key: str) -> list[str]:
    """The queues that get a message of that key: each once, in the order of their names."""
    return sorted(
        {
            found.queue
            for found in bindings
            if found.routing_key == routing_key
            or (found.kind == "topic" and topic_matches(found.routing_key, routing_key))
        }
    )
