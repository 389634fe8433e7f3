"""Which queue and priority a task is sent with: explicit option, then task, then `task_routes`, then default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from aioretryq.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Route:
    """Where to; None leaves it to whoever asks next."""

    queue: str | None = None
    priority: int | None = None


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
    if isinstance(target, Mapping) and set(target) <= {"queue", "priority", "routing_key", "exchange"}:
        # For the direct exchanges of this package, routing key and queue are the same thing.
        priority = target.get("priority")
        if priority is not None and not (type(priority) is int and 0 <= priority <= 9):
            raise ConfigError(f"A route's priority is a number from 0 (served first) to 9, not {priority!r}.")
        return Route(queue=target.get("queue") or target.get("routing_key"), priority=priority)
    raise ConfigError(f"A route must be a queue name or a dict with 'queue' and 'priority', not {target!r}.")
