"""Task messages: Celery's protocol 2 both ways (celery/app/amqp.py), and reading protocol 1 and hybrids of both."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from aioretryq.errors import PayloadTooLarge, ProtocolError
from aioretryq.message import TaskMessage
from aioretryq.protocol import compression, envelope
from aioretryq.protocol.content import CONTENT_TYPES, decode_content, encode_content
from aioretryq.protocol.moments import format_moment, local_to_aware, parse_moment
from aioretryq.protocol.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aioretryq.protocol.security import Security

__all__ = [
    "CONTENT_TYPES",
    "decode_task",
    "encode_body",
    "encode_task",
    "format_moment",
    "identify",
    "parse_moment",
    "saferepr",
]

# Headers that have a field in TaskMessage. `redelivered` is about one delivery, and must not survive a retry.
_KNOWN = frozenset(
    "task id shadow eta expires group group_index retries timelimit root_id parent_id argsrepr kwargsrepr origin "
    "ignore_result replaced_task_nesting stamped_headers stamps compression redelivered".split()
)
USUAL_HEADERS = _KNOWN | {"lang"}
_HIGHEST_PRIORITY = 9
_LISTS = (list, tuple)
_LONGEST = 2.0**53


def encode_task(message: TaskMessage, *, tag: str, max_size: int | None = None) -> bytes:
    """The message as a Celery client would have put it into the queue; `tag` is unique to this publish.

    What a client always fills in is filled in: root_id and correlation_id with the id, argsrepr and
    kwargsrepr from the arguments. Raises EncodeError for arguments that cannot be serialised, PayloadTooLarge for a
    compressed body that is more than `max_size` bytes without the compression: nobody would read it.
    """
    body, encoding = encode_body(message, message.args, message.kwargs, max_size)
    headers = headers_of(message)
    if message.compression is not None:
        headers["compression"] = compression.content_type(message.compression)
    properties: dict[str, Any] = {
        "correlation_id": message.correlation_id or message.id,
        "reply_to": message.reply_to or "",
        "delivery_mode": message.delivery_mode,
        "delivery_info": {"exchange": message.exchange, "routing_key": message.routing_key},
        "priority": message.priority,
        "delivery_tag": tag,
    }
    if message.expiration is not None:
        properties["expiration"] = message.expiration
    return envelope.encode(envelope.Envelope(body, message.content_type, encoding, headers, properties))


def encode_body(message: TaskMessage, args: Any, kwargs: Any, max_size: int | None = None) -> tuple[bytes, str]:
    """(body, content encoding) of the message with these arguments. Raises as `encode_task` does."""
    embed = {
        "callbacks": message.callbacks,
        "errbacks": message.errbacks,
        "chain": message.chain,
        "chord": message.chord,
    }
    body, encoding = encode_content([args, kwargs, embed], message.content_type, message.security)
    if message.compression is None:
        return body, encoding
    if max_size is not None and len(body) > max_size:
        raise too_large(message.task, "its arguments have", len(body), max_size)
    return compression.compress(body, message.compression), encoding


def too_large(task: str, what: str, size: int, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"Task {task} was not sent: {what} {size:,} bytes, max_payload_bytes is {limit:,}. "
        "Store large data elsewhere and pass its key."
    )


def identify(payload: bytes) -> tuple[str, str] | None:
    """(task id, task name) of a message whose headers at least can be read: somebody may wait for its result."""
    try:
        headers = envelope.headers_of(payload)
    except ProtocolError:
        return None
    task_id, name = headers.get("id"), headers.get("task")
    if not isinstance(task_id, str) or not task_id or not isinstance(name, str):
        return None
    return task_id, name


def decode_task(
    payload: bytes,
    *,
    accept_content: Collection[str] = ("json",),
    max_size: int = compression.MAX_SIZE,
    security: Security | None = None,
    loads: Callable[[bytes, str, str], Any] | None = None,
) -> TaskMessage:
    """The task in a message of protocol 2 or 1, or in the mixture that some non-Python clients send.

    Raises ContentDisallowed for a serializer that is not accepted, and ProtocolError for everything else
    that is not a task; nothing else. `max_size` limits a compressed body. `security` verifies a signed one, and
    signs what follows from it. With `loads` (of bytes, content type and encoding) the body is read by something else,
    which decides what is accepted.
    """
    found = envelope.decode(payload)
    compressed = found.headers.get("compression")
    data = found.body
    if compressed is not None:
        data = compression.decompress(data, _required_text(compressed, "compression"), max_size)
    if loads is None:
        body = decode_content(data, found.content_type, found.content_encoding, accept_content, security)
    else:
        body = loads(data, found.content_type, found.content_encoding)
    if isinstance(body, dict):
        headers, args, kwargs, embed = _flat(found.headers, body)
    else:
        headers = found.headers
        args, kwargs, embed = _three(body)
    if not isinstance(args, _LISTS):
        raise ProtocolError(f"The arguments of a task are a list, not {type(args).__name__}.")
    if not isinstance(kwargs, dict):
        raise ProtocolError(f"The keyword arguments of a task are an object, not {type(kwargs).__name__}.")
    return _message(found, headers, (list(args), kwargs, embed), security)


def headers_of(message: TaskMessage) -> dict[str, Any]:
    """As they travel; what a client always fills in is filled in."""
    argsrepr, kwargsrepr = message.argsrepr, message.kwargsrepr
    headers: dict[str, Any] = {
        "lang": "py",
        "task": message.task,
        "id": message.id,
        "shadow": message.shadow,
        "eta": message.eta,
        "expires": message.expires,
        "group": message.group,
        "group_index": message.group_index,
        "retries": message.retries,
        "timelimit": [message.time_limit, message.soft_time_limit],
        "root_id": message.root_id or message.id,
        "parent_id": message.parent_id,
        "argsrepr": saferepr(tuple(message.args)) if argsrepr is None else argsrepr,
        "kwargsrepr": saferepr(message.kwargs) if kwargsrepr is None else kwargsrepr,
        "origin": message.origin,
        "ignore_result": message.ignore_result,
        "replaced_task_nesting": message.replaced_task_nesting,
        "stamped_headers": message.stamped_headers,
        "stamps": message.stamps,
    }
    # Other headers lie beside ours; one with the name of ours would turn this into another message.
    if message.headers:
        headers.update((name, value) for name, value in message.headers.items() if name not in _KNOWN)
    return headers


def _three(body: Any) -> tuple[Any, Any, dict[str, Any]]:
    if not isinstance(body, _LISTS) or len(body) != 3:
        raise ProtocolError(
            f"The body of a task is [args, kwargs, options], not {saferepr(body, 80)}; "
            "was this sent by something other than Celery or aioretryq?"
        )
    args, kwargs, embed = body
    if embed is not None and not isinstance(embed, dict):
        raise ProtocolError(f"The third part of a task's body is an object, not {type(embed).__name__}.")
    return args, kwargs, embed or {}


def _flat(headers: dict[str, Any], body: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, dict[str, Any]]:
    """Protocol 1: everything lies in the body. With a `task` header it is a hybrid, where headers win."""
    fields = {name: value for name, value in body.items() if name in _KNOWN}
    if "task" in headers:
        fields = {**fields, **headers}
    else:
        fields = {**headers, **fields, "group": body.get("taskset") or body.get("group")}
    if body.get("utc", True) is False:
        for name in ("eta", "expires"):
            if fields.get(name):
                fields[name] = local_to_aware(moment_of(fields[name]) or "")
    args, kwargs = body.get("args"), body.get("kwargs")
    args, kwargs = () if args is None else args, {} if kwargs is None else kwargs
    if isinstance(args, _LISTS) and fields.get("argsrepr") is None:
        fields["argsrepr"] = saferepr(tuple(args))
    if fields.get("kwargsrepr") is None:
        fields["kwargsrepr"] = saferepr(kwargs)
    return fields, args, kwargs, {name: body.get(name) for name in ("callbacks", "errbacks", "chord")}


def _message(
    found: envelope.Envelope,
    headers: dict[str, Any],
    body: tuple[list[Any], dict[str, Any], dict[str, Any]],
    security: Security | None,
) -> TaskMessage:
    args, kwargs, embed = body
    get, properties = headers.get, found.properties
    hard, soft = time_limits(get("timelimit"))
    exchange, routing_key = _delivery(properties.get("delivery_info"))
    compressed, expiration = get("compression"), properties.get("expiration")
    return TaskMessage(
        id=_required_text(get("id"), "id"),
        task=_required_text(get("task"), "task"),
        args=args,
        kwargs=kwargs,
        retries=_integer(get("retries"), "retries", 0),
        eta=moment_of(get("eta")),
        expires=moment_of(get("expires")),
        root_id=_text(get("root_id"), "root_id"),
        parent_id=_text(get("parent_id"), "parent_id"),
        group=_text(get("group"), "group"),
        group_index=None if get("group_index") is None else _integer(get("group_index"), "group_index", 0),
        time_limit=hard,
        soft_time_limit=soft,
        ignore_result=None if get("ignore_result") is None else bool(get("ignore_result")),
        shadow=_text(get("shadow"), "shadow"),
        argsrepr=_shown(get("argsrepr")),
        kwargsrepr=_shown(get("kwargsrepr")),
        origin=_shown(get("origin")),
        replaced_task_nesting=_integer(get("replaced_task_nesting"), "replaced_task_nesting", 0),
        stamped_headers=_names(get("stamped_headers")),
        stamps=_object(get("stamps"), "stamps") or {},
        **followups(embed),
        headers=_others(headers),
        reply_to=_text(properties.get("reply_to"), "reply_to"),
        correlation_id=_text(properties.get("correlation_id"), "correlation_id"),
        priority=max(0, min(_integer(properties.get("priority"), "priority", 0), _HIGHEST_PRIORITY)),
        delivery_mode=_integer(properties.get("delivery_mode"), "delivery_mode", 2),
        exchange=exchange,
        routing_key=routing_key,
        expiration=str(expiration) if type(expiration) is int else _text(expiration, "expiration"),
        content_type=found.content_type,
        compression=None if compressed is None else compression.content_type(compressed),
        security=security,
    )


def followups(embed: dict[str, Any]) -> dict[str, Any]:
    """What is to follow from a task, as fields of its message."""
    found: dict[str, Any] = {name: _signatures(embed.get(name), name) for name in ("callbacks", "errbacks", "chain")}
    found["chord"] = _object(embed.get("chord"), "chord")
    return found


def _others(headers: dict[str, Any]) -> dict[str, Any]:
    if headers.keys() <= USUAL_HEADERS and headers.get("lang") == "py":  # nearly all
        return {}
    others = {name: value for name, value in headers.items() if name not in _KNOWN}
    if others.get("lang") == "py":  # what we write ourselves; any other sender is worth remembering
        del others["lang"]
    return others


def _delivery(info: Any) -> tuple[str, str]:
    fields = _object(info, "delivery_info") or {}
    exchange = _text(fields.get("exchange"), "exchange")
    routing_key = _text(fields.get("routing_key"), "routing_key")
    return exchange or "", "celery" if routing_key is None else routing_key


def time_limits(value: Any) -> tuple[float | None, float | None]:
    if value is None:
        return None, None
    if not isinstance(value, _LISTS) or len(value) != 2:
        raise ProtocolError(f"timelimit is [hard, soft] in seconds, not {saferepr(value, 80)}.")
    for limit in value:
        if limit is not None and (type(limit) not in (int, float) or not 0 <= limit < _LONGEST):
            raise ProtocolError(f"A time limit is a number of seconds or null, not {saferepr(limit, 80)}.")
    return value[0], value[1]


def moment_of(value: Any) -> str | None:
    if not value:  # some senders write "" for none
        return None
    if isinstance(value, datetime):  # of protocol 1, in a body whose serializer knows dates
        value = value.isoformat()
    text = _required_text(value, "eta or expires")
    parse_moment(text)
    return text


def _required_text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise ProtocolError(f"The {name} of a task is a text, not {saferepr(value, 80)}.")
    return value


def _text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ProtocolError(f"The {name} of a task is a text or null, not {saferepr(value, 80)}.")
    return value


def _shown(value: Any) -> str | None:
    # Only ever read by people: nothing to refuse a task for.
    return value if value is None or isinstance(value, str) else saferepr(value)


def _integer(value: Any, name: str, default: int) -> int:
    if value is None:
        return default
    if type(value) is int and abs(value) < 2**63:
        return value
    raise ProtocolError(f"The {name} of a task is an integer, not {saferepr(value, 80)}.")


def _object(value: Any, name: str) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise ProtocolError(f"{name} of a task is an object or null, not {saferepr(value, 80)}.")
    return value


def _names(value: Any) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ProtocolError(f"stamped_headers is a list of names or null, not {saferepr(value, 80)}.")
    return value


def _signatures(value: Any, name: str) -> list[dict[str, Any]] | None:
    if value is None:
        return None
    signatures = [value] if isinstance(value, dict) else value
    if not isinstance(signatures, _LISTS) or not all(isinstance(each, dict) for each in signatures):
        raise ProtocolError(f"{name} of a task is a list of signatures or null, not {saferepr(value, 80)}.")
    return list(signatures)
