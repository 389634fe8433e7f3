"""Remote control on the wire: requests to all workers, and their replies (kombu/pidbox.py)."""

from __future__ import annotations

import base64
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from msgspec import Struct, field

from aioretryq.errors import EncodeError, ProtocolError
from aioretryq.message import Broadcast
from aioretryq.protocol import envelope, jsontypes
from aioretryq.protocol.content import JSON, content_type_of, decode_content, encode_content
from aioretryq.protocol.saferepr import saferepr
from aioretryq.protocol.security import security_for

if TYPE_CHECKING:
    from collections.abc import Collection

    from aioretryq.config import Settings
    from aioretryq.protocol.security import Security

LARGEST_REQUEST = 2**20
"""Bytes; a request is a few hundred, a thousand revoked ids are 40 kB."""

STALE_AFTER = 30.0
"""Seconds past its end after which a request is ignored. Less would ignore those whose clock is behind ours."""

_SHOWN = 100
_LATEST = 2.0**53
_QUOTES = "'"


class Address(Struct, frozen=True):
    """Where replies go."""

    exchange: str
    routing_key: str


class Request(Struct, frozen=True, kw_only=True):
    """What somebody asks of the workers.

    `destination` are names of nodes; without it `pattern` chooses, and without that everybody is meant. `expires`
    (unix seconds) is when the sender stops waiting. `durable`: the sender has written to the broker what must outlive
    the workers that hear it now. `origin` is whatever is known of who asks, for the log.
    """

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    destination: tuple[str, ...] | None = None
    pattern: str | None = None
    matcher: str | None = None
    ticket: str | None = None
    reply_to: Address | None = None
    clock: int = 0
    expires: float | None = None
    durable: bool = False
    origin: str = ""
    content_type: str = JSON

    @property
    def for_all(self) -> bool:
        """Whether what it asks has still to be written down for the workers that do not hear it."""
        return not self.durable and self.destination is None and self.pattern is None

    @property
    def stale(self) -> bool:
        return self.expires is not None and time.time() > self.expires + STALE_AFTER


class Form(Struct, frozen=True):
    """How requests are written, and which ones are read: as messages of tasks are."""

    content_type: str = JSON
    accept: Collection[str] = ("json",)
    security: Security | None = None


def form_for(settings: Settings) -> Form:
    return Form(content_type_of(settings.task_serializer), settings.accept_content, security_for(settings))


class Reply(Struct, frozen=True):
    ticket: str | None
    clock: int
    answers: dict[str, Any]
    """By the name of the node."""


def request_exchange(namespace: str) -> str:
    return f"{namespace}.pidbox"


def reply_exchange(namespace: str) -> str:
    return f"reply.{namespace}.pidbox"


def encode_request(request: Request, namespace: str, form: Form) -> Broadcast:
    """As kombu would send it. Raises EncodeError for arguments that cannot be serialised."""
    body: dict[str, Any] = {
        "method": request.method,
        "arguments": request.arguments,
        "destination": None if request.destination is None else list(request.destination),
        "pattern": request.pattern,
        "matcher": request.matcher,
    }
    if request.reply_to is not None:
        body["ticket"] = request.ticket
        body["reply_to"] = {
            "exchange": request.reply_to.exchange,
            "routing_key": request.reply_to.routing_key,
        }
    headers: dict[str, Any] = {"clock": request.clock, "expires": request.expires or 0}
    if request.origin:
        headers["origin"] = request.origin
    if request.durable:
        headers["aioretryq_durable"] = True
    content, encoding = encode_content(body, form.content_type, form.security)
    return _broadcast(request_exchange(namespace), "", content, form.content_type, encoding, headers)


def decode_request(payload: bytes, form: Form) -> Request:
    """Raises ProtocolError for whatever is no request; its text names the sender as far as he can be known."""
    if len(payload) > LARGEST_REQUEST:
        raise ProtocolError(f"A request of {len(payload):,} bytes is too large; {LARGEST_REQUEST:,} are read.")
    found = envelope.decode(payload)
    body = decode_content(found.body, found.content_type, found.content_encoding, form.accept, form.security)
    if not isinstance(body, dict):
        raise ProtocolError(f"A request is an object, not {saferepr(body, _SHOWN)}.")
    origin = _origin(found.headers, body)
    try:
        return Request(
            method=_required_text(body, "method"),
            arguments=_arguments(body.get("arguments")),
            destination=_destination(body.get("destination")),
            pattern=_text(body, "pattern"),
            matcher=_text(body, "matcher"),
            ticket=_text(body, "ticket"),
            reply_to=_address(body.get("reply_to")),
            clock=_clock(found.headers),
            expires=_expires(found.headers.get("expires")),
            durable=found.headers.get("aioretryq_durable") is True,
            origin=origin,
            content_type=found.content_type,
        )
    except ProtocolError as error:
        raise ProtocolError(f"{error} It came from {origin}.") from None


def encode_reply(node: str, reply: Any, request: Request, clock: int, form: Form) -> Broadcast:
    """The reply of a node, in the serializer of the request; what JSON cannot hold is shown as text."""
    assert request.reply_to is not None
    content_type = request.content_type
    content, encoding = encode_content({node: jsonable(reply)}, content_type, form.security)
    headers = {"ticket": request.ticket, "clock": clock}
    address = request.reply_to
    return _broadcast(address.exchange, address.routing_key, content, content_type, encoding, headers)


def decode_reply(payload: bytes, form: Form) -> Reply:
    """Raises ProtocolError for whatever is no reply."""
    found = envelope.decode(payload)
    body = decode_content(found.body, found.content_type, found.content_encoding, form.accept, form.security)
    if not isinstance(body, dict) or not all(isinstance(node, str) for node in body):
        raise ProtocolError(f"A reply is an object with nodes as keys, not {saferepr(body, _SHOWN)}.")
    ticket = found.headers.get("ticket")
    return Reply(ticket if isinstance(ticket, str) else None, _clock(found.headers), body)


def jsonable(value: Any, depth: int = 20) -> Any:
    """The value as far as JSON can hold it, the rest as texts."""
    try:
        jsontypes.dumps(value)
    except (EncodeError, ValueError):
        if depth and isinstance(value, dict):
            return {_key(key): jsonable(each, depth - 1) for key, each in value.items()}
        if depth and isinstance(value, list | tuple | set | frozenset):
            return [jsonable(each, depth - 1) for each in value]
        return saferepr(value)
    return value


def _key(key: Any) -> str:
    return key if isinstance(key, str) else saferepr(key, _SHOWN)


def _broadcast(
    exchange: str, routing_key: str, content: bytes, content_type: str, encoding: str, headers: dict[str, Any]
) -> Broadcast:
    properties = {
        "delivery_mode": 1,
        "delivery_info": {"exchange": exchange, "routing_key": routing_key},
        "priority": 0,
        "delivery_tag": str(uuid4()),
    }
    body = envelope.encode(envelope.Envelope(content, content_type, encoding, headers, properties))
    return Broadcast(exchange, routing_key, body)


# -- reading what anybody may have written


def _origin(headers: dict[str, Any], body: dict[str, Any]) -> str:
    address = body.get("reply_to")
    reply_to = address.get("routing_key") if isinstance(address, dict) else address
    ticket = body.get("ticket")
    known = {"": headers.get("origin"), "reply_to ": reply_to, "ticket ": ticket if ticket != reply_to else None}
    names = [f"{what}{saferepr(value, _SHOWN).strip(_QUOTES)}" for what, value in known.items() if value]
    return ", ".join(names) or "somebody who gave neither name nor reply_to"


def _required_text(body: dict[str, Any], name: str) -> str:
    text = _text(body, name)
    if not text:
        raise ProtocolError(f"A request has a {name!r}.")
    return text


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise ProtocolError(f"{name!r} of a request is a text, not {saferepr(value, _SHOWN)}.")
    return value


def _arguments(value: Any) -> dict[str, Any]:
    if not value:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ProtocolError(f"The arguments of a request are an object, not {saferepr(value, _SHOWN)}.")
    return value


def _destination(value: Any) -> tuple[str, ...] | None:
    if not value:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ProtocolError(f"The destination of a request is a list of nodes, not {saferepr(value, _SHOWN)}.")
    return tuple(names)


def _address(value: Any) -> Address | None:
    if not value:
        return None
    if isinstance(value, dict):
        exchange, routing_key = value.get("exchange"), value.get("routing_key")
        if isinstance(exchange, str) and isinstance(routing_key, str):
            return Address(exchange, routing_key)
    raise ProtocolError(f"reply_to of a request has an exchange and a routing_key, not {saferepr(value, _SHOWN)}.")


def _clock(headers: dict[str, Any]) -> int:
    clock = headers.get("clock")
    # One that is absurd would run away with the clocks of the whole fleet.
    return clock if type(clock) is int and 0 <= clock < 2**53 else 0


def _expires(value: Any) -> float | None:
    if not value:
        return None
    if type(value) not in (int, float):
        raise ProtocolError(f"'expires' of a request is a time in seconds, not {saferepr(value, _SHOWN)}.")
    if not abs(value) < _LATEST:  # of an integer without bounds there may be no float
        raise ProtocolError(f"'expires' of a request is no time: {saferepr(value, _SHOWN)}.")
    return float(value)


def sender_of(payload: bytes) -> str:
    """Who sent what cannot be read, as far as that can be told; never raises."""
    with suppress(Exception):  # it is asked where something has failed already
        return _sender(payload)
    return f"somebody who wrote {saferepr(payload[:_SHOWN], _SHOWN)}"


def _sender(payload: bytes) -> str:
    found = envelope.decode(payload)
    try:
        body = decode_content(found.body, found.content_type, found.content_encoding, ("json",))
    except ProtocolError:
        body = base64.b64encode(found.body[:60]).decode()
    if isinstance(body, dict):
        return _origin(found.headers, body)
    return f"somebody with the headers {saferepr(found.headers, 2 * _SHOWN)} and the body {saferepr(body, _SHOWN)}"
