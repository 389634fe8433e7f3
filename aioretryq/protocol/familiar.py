"""Task messages that look like earlier ones, read without checking again what only the look decides.

Nearly all messages of a fleet have the same fields with values of the same types, and most of the time that
`decode_task` takes goes into making sure of that (12 instead of 19 us a message; one that never becomes familiar is
parsed twice). The *shape* of a message is the
names and types of its fields. Remembered are shapes of messages that `decode_task` has accepted: so nothing passes
here that would be refused there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from aioretryq.message import TaskMessage
from aioretryq.protocol import jsontypes
from aioretryq.protocol.content import JSON
from aioretryq.protocol.envelope import bytes_of
from aioretryq.protocol.task import USUAL_HEADERS, decode_task, moment_of, time_limits

if TYPE_CHECKING:
    from collections.abc import Collection

    from aioretryq.protocol.security import Security

Shape = tuple[Any, ...]

REMEMBERED = 500
"""Shapes: each kind of client, and each way to call, makes a few."""

_NOT_FAMILIAR = (ValueError, LookupError, TypeError, AttributeError)
"""What looking at a document raises that is none of ours, or no document."""
_CONTAINERS = {"timelimit": list, "stamps": dict}
_PLAIN = frozenset({str, int, bool, type(None)})
_DOCUMENT = {"body", "content-encoding", "content-type", "headers", "properties"}
_SHOWN = (str, type(None))
_MOST = 2**31
_ELSEWHERE = ("compression", "stamped_headers")
_NONE = frozenset({type(None)})


class Reader:
    """Remembers shapes; for one queue, whose settings it is given with each message."""

    def __init__(self) -> None:
        self._shapes: set[Shape] = set()

    def decode(
        self, payload: bytes, *, accept_content: Collection[str], max_size: int, security: Security | None
    ) -> TaskMessage:
        """As `decode_task`."""
        document = _parsed(payload)
        shape = None if document is None else _shape(document)
        if document is not None and shape in self._shapes and "json" in accept_content:
            message = _message(document, security)
            if message is not None:
                return message
        message = decode_task(payload, accept_content=accept_content, max_size=max_size, security=security)
        if document is not None and shape is not None and _is_usual(document):
            if len(self._shapes) >= REMEMBERED:
                self._shapes.clear()  # those of today will be here again at once
            self._shapes.add(shape)
        return message


def _parsed(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None


def _shape(document: Any) -> Shape | None:
    try:
        headers, properties = document["headers"], document["properties"]
        info = properties["delivery_info"]
        counts = len(document), len(headers), len(properties)  # or a name could move from one to the next
        types = *map(type, headers.values()), *map(type, properties.values()), *map(type, info.values())
        return *counts, *document, *headers, *properties, *info, *types
    except _NOT_FAMILIAR:
        return None


def _is_usual(document: Any) -> bool:
    """Whether the shape tells all that `_message` does not look at itself."""
    headers, properties = document["headers"], document["properties"]
    if document.keys() != _DOCUMENT or not headers.keys() <= USUAL_HEADERS or "expiration" in properties:
        return False
    if any(headers.get(name) is not None for name in _ELSEWHERE):
        return False
    if not all(type(headers.get(name)) in _SHOWN for name in ("origin", "argsrepr", "kwargsrepr")):
        return False
    # No float: orjson makes one of an integer that is too long for it.
    return all(type(value) in _PLAIN or type(value) is _CONTAINERS.get(name) for name, value in headers.items())


def _call(document: Any) -> tuple[list[Any], dict[str, Any]] | None:
    """Arguments from a JSON body, if nothing follows from the task."""
    if document["content-type"] != JSON or document["content-encoding"] != "utf-8":
        return None
    if document["properties"].get("body_encoding") != "base64":
        return None
    try:
        args, kwargs, embed = jsontypes.loads(bytes_of(document["body"]))
        followed = not _NONE.issuperset(map(type, embed.values()))
    except _NOT_FAMILIAR:
        return None
    return None if followed or type(args) is not list or type(kwargs) is not dict else (args, kwargs)


def _message(document: Any, security: Security | None) -> TaskMessage | None:
    """The message of a familiar shape; None where its values have to be looked at more closely."""
    headers, properties = document["headers"], document["properties"]
    get, found, info = headers.get, properties.get, properties["delivery_info"]
    if get("stamps") or get("lang") != "py" or not get("id") or not get("task"):
        return None
    call = _call(document)
    if call is None:
        return None
    args, kwargs = call
    retries, nesting, priority = get("retries") or 0, get("replaced_task_nesting") or 0, found("priority") or 0
    group_index, mode = get("group_index"), found("delivery_mode")
    if not 0 <= retries <= _MOST or not 0 <= nesting <= _MOST or not 0 <= priority <= 9 or mode != 2:
        return None
    if group_index is not None and not 0 <= group_index <= _MOST:
        return None
    hard, soft = time_limits(get("timelimit"))
    wanted, routing_key = get("ignore_result"), info.get("routing_key")
    return TaskMessage(
        id=headers["id"],
        task=headers["task"],
        args=args,
        kwargs=kwargs,
        retries=retries,
        eta=moment_of(get("eta")),
        expires=moment_of(get("expires")),
        root_id=get("root_id"),
        parent_id=get("parent_id"),
        group=get("group"),
        group_index=group_index,
        time_limit=hard,
        soft_time_limit=soft,
        ignore_result=None if wanted is None else bool(wanted),
        shadow=get("shadow"),
        argsrepr=get("argsrepr"),
        kwargsrepr=get("kwargsrepr"),
        origin=get("origin"),
        replaced_task_nesting=nesting,
        reply_to=found("reply_to"),
        correlation_id=found("correlation_id"),
        priority=priority,
        exchange=info.get("exchange") or "",
        routing_key="celery" if routing_key is None else routing_key,
        security=security,
    )
