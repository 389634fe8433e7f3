"""Calls without options, as nearly all are: what only the task and the settings decide is decided once.

Nothing has to be told when an option or a setting changes: whatever `compose` looks at is looked at in every call,
and where something is not as it was, the message is composed anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from aioretryq.calling import CallOptions, compose
from aioretryq.exchanging import outgoing
from aioretryq.ids import new_id
from aioretryq.protocol.content import AUTH
from aioretryq.protocol.task import too_large
from aioretryq.protocol.template import Template
from aioretryq.publishing import Terms
from aioretryq.routing import NO_ROUTE, check_routes, route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.config import Settings
    from aioretryq.context import Request
    from aioretryq.message import Outgoing
    from aioretryq.task import Task

_OF_TASK = attrgetter(
    *("queue", "exchange", "routing_key", "priority", "serializer", "compression"),
    *("time_limit", "soft_time_limit", "ignore_result", "expires", "shadow_name"),
)
_OF_SETTINGS = attrgetter(
    *("task_default_priority", "task_serializer", "task_compression", "max_payload_bytes"),
    *("task_queues", "task_default_queue", "task_default_exchange", "task_default_exchange_type"),
    *("task_default_routing_key", "task_create_missing_queues", "security_key", "security_certificate"),
    *("security_cert_store", "security_key_password", "security_digest"),
    *("task_publish_timeout", "task_publish_wait", "task_publish_retry", "task_publish_retry_policy"),
)
_MOST = 1000
"""Tasks whose template is kept: names may come from anywhere."""

NO_OPTIONS = CallOptions()


@dataclass(slots=True)
class Calls:
    """Calls of one task that differ in ids and arguments only."""

    template: Template
    terms: Terms
    limit: int
    ignored: bool
    root_id: str | None
    parent_id: str | None

    @classmethod
    def of(cls, name: str, task: Task[Any, Any] | None, settings: Settings, options: CallOptions) -> Calls | None:
        """None if they differ in more. Raises what composing a message raises."""
        if settings.task_routes is not None:
            check_routes(settings.task_routes)
            if _asks_arguments(settings.task_routes):
                return None
        if task is not None and task.shadow_name is not None and options.shadow is None:
            return None
        message = compose(name, ((), {}), options, task=task, settings=settings, caller=None, now=time.time())
        if message.content_type == AUTH:
            return None  # no two signatures of one text are the same: what to leave blank cannot be found
        limit = settings.max_payload_bytes
        template = Template(message, new_id(), max_size=limit)
        terms, ignored = Terms.of(options, settings), bool(message.ignore_result)
        return cls(template, terms, limit, ignored, options.root_id, options.parent_id)

    def pack(self, args: Sequence[Any], kwargs: Mapping[str, Any], caller: Request | None) -> tuple[str, Outgoing]:
        """(id of the task, its message). Raises EncodeError, and PayloadTooLarge."""
        task_id, tag = new_id(), new_id()
        root, parent = self.root_id, self.parent_id
        if caller is not None:
            root, parent = root or caller.root_id, parent or caller.id
        body = self.template.encode(task_id, (args, kwargs), tag=tag, root_id=root or None, parent_id=parent)
        message = self.template.message
        if len(body) > self.limit:
            raise too_large(f"{message.task}[{task_id}]", "its message has", len(body), self.limit)
        return task_id, outgoing(message, body, tag, fresh=True)


class PlainCalls:
    """Of each task of a queue."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, tuple[tuple[Any, ...], Calls]] = {}

    def of(self, name: str, task: Task[Any, Any] | None) -> Calls | None:
        """None if each call has to be composed by itself. Raises ConfigError."""
        settings = self._settings
        if settings.task_send_sent_event or (task is not None and task.expires is not None):
            return None  # an event tells of the whole message; and it expires by the clock
        routed = NO_ROUTE
        if settings.task_routes is not None:
            check_routes(settings.task_routes)
            if _asks_arguments(settings.task_routes):
                return None
            routed = route(settings.task_routes, name)
        state = (routed, task, None if task is None else _OF_TASK(task), _OF_SETTINGS(settings))
        known = self._known.get(name)
        if known is not None and known[0] == state:
            return known[1]
        calls = Calls.of(name, task, settings, NO_OPTIONS)
        if calls is not None:
            if len(self._known) >= _MOST:
                self._known.clear()
            # What may be changed in place is compared with what it was.
            *before, of_settings = state
            kept = tuple(dict(each) if isinstance(each, dict) else each for each in of_settings)
            self._known[name] = (*before, kept), calls
        return calls


def uniform(name: str, task: Task[Any, Any] | None, settings: Settings) -> bool:
    """Whether calls of the task with the same options differ by nothing but ids and arguments."""
    return not _asks_arguments(settings.task_routes) and (task is None or task.shadow_name is None)


def _asks_arguments(routes: Any) -> bool:
    """Whether a router is asked, who may look at the arguments."""
    if isinstance(routes, list | tuple):
        return any(_asks_arguments(entry) for entry in routes)
    return callable(routes) and not isinstance(routes, Mapping)
