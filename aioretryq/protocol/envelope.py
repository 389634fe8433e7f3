"""What kombu puts around every message: one JSON document with a base64 body (kombu/transport/virtual/base.py)."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Any

import pybase64
from msgspec import Struct, field

from aioretryq.errors import ProtocolError
from aioretryq.protocol import jsontypes

if TYPE_CHECKING:
    from collections.abc import Collection

_LARGE = 4096
"""Bytes from which on pybase64 is worth it: 7 us for 100 kB, where the standard library takes 280. It works with the
processor's vector unit, though, and waking that takes 3 to 20 us, where the standard library needs 0.3."""

_KEYS = ("body", "content-type", "content-encoding", "headers", "properties")


class Envelope(Struct, frozen=True):
    """A message as it travels; `extra` holds keys of the document that kombu does not have."""

    body: bytes
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    headers: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def encode(envelope: Envelope) -> bytes:
    """The document that goes into a queue. Raises EncodeError for headers that JSON cannot hold."""
    document = {
        "body": text_of(envelope.body).decode(),
        "content-encoding": envelope.content_encoding,
        "content-type": envelope.content_type,
        "headers": envelope.headers,
        "properties": {**envelope.properties, "body_encoding": "base64"},
    }
    # Only headers may hold values of somebody's own: the rest was made here, or read from a message before.
    whole = {**envelope.extra, **document} if envelope.extra else document
    return jsontypes.dumps(whole, plain=jsontypes.is_plain(envelope.headers))


def text_of(body: bytes) -> bytes:
    """The body as it stands in the document, in ASCII."""
    return binascii.b2a_base64(body, newline=False) if len(body) < _LARGE else pybase64.b64encode(body)


def bytes_of(text: str) -> bytes:
    """What `text_of` was given, or another sender's encoder. Raises ValueError for what is no base64."""
    if len(text) >= _LARGE:
        try:
            return pybase64.b64decode(text, validate=True)
        except ValueError:  # with line breaks, say
            pass
    return binascii.a2b_base64(text)


def decode(payload: bytes) -> Envelope:
    """Raises ProtocolError for anything that is not such a document, and nothing else."""
    document = _document(payload)
    properties = _mapping(document, "properties")
    extra = {key: value for key, value in document.items() if key not in _KEYS} if len(document) > 5 else {}
    return Envelope(
        _body(document.get("body"), properties.pop("body_encoding", None)),
        _text(document, "content-type", "application/json"),
        _text(document, "content-encoding", "utf-8"),
        _mapping(document, "headers"),
        properties,
        extra,
    )


def headers_of(payload: bytes) -> dict[str, Any]:
    """The headers alone, also where the rest cannot be read. Raises ProtocolError, and nothing else."""
    return _mapping(_document(payload), "headers")


def publish_tag(payload: bytes) -> str:
    """Unique to the publish that brought the message, however often it is delivered; '' if it cannot be told."""
    try:
        return str(_mapping(_document(payload), "properties").get("delivery_tag") or "")
    except ProtocolError:
        return ""


def _document(payload: bytes) -> dict[str, Any]:
    document = jsontypes.loads(payload)
    if not isinstance(document, dict):
        raise ProtocolError(f"A message is a JSON object, not {type(document).__name__}: {payload[:80]!r}.")
    return document


MARKS = "aioretryq"
"""Where in a message's `delivery_info` we keep what concerns its deliveries: no retry carries that on, and kombu
leaves it alone."""


def mark_redelivered(payload: bytes, **marks: int) -> bytes:
    """The message as kombu restores it, marked as delivered before; with marks of ours.

    What is no message is left alone.
    """
    return _mark(payload, True, marks)


def mark(payload: bytes, **marks: float) -> bytes:
    """The message with marks of ours added; what is no message is left alone."""
    return _mark(payload, False, marks)


def _mark(payload: bytes, redelivered: bool, marks: dict[str, Any]) -> bytes:
    try:
        found = decode(payload)
    except ProtocolError:
        return payload
    given = found.properties.get("delivery_info")
    delivery = given if isinstance(given, dict) else {}
    if redelivered:
        found.headers["redelivered"] = True
        delivery = {**delivery, "redelivered": True}
    if marks:
        delivery = {**delivery, MARKS: {**_marks_of(delivery), **marks}}
    found.properties["delivery_info"] = delivery
    return encode(found)


def unmark(payload: bytes) -> bytes:
    """The message as if it had never been delivered; what is no message is left alone."""
    try:
        found = decode(payload)
    except ProtocolError:
        return payload
    found.headers.pop("redelivered", None)
    delivery = found.properties.get("delivery_info")
    if isinstance(delivery, dict):
        kept = {name: value for name, value in delivery.items() if name not in ("redelivered", MARKS)}
        found.properties["delivery_info"] = kept
    return encode(found)


def without_marks(payload: bytes, names: Collection[str]) -> bytes:
    """The message without those marks of ours; one that has none of them is left alone."""
    given = marks(payload)
    if given.keys().isdisjoint(names):  # nearly all
        return payload
    found = decode(payload)
    delivery = dict(found.properties["delivery_info"])
    delivery[MARKS] = {name: value for name, value in given.items() if name not in names}
    if not delivery[MARKS]:
        del delivery[MARKS]
    found.properties["delivery_info"] = delivery
    return encode(found)


def marks(payload: bytes) -> dict[str, float]:
    """Our marks on a message; none where there are none."""
    if b'"delivery_info"' not in payload or b'"aioretryq"' not in payload:  # nearly all: spares reading the document
        return {}
    try:
        return _marks_of(decode(payload).properties.get("delivery_info"))
    except ProtocolError:
        return {}


def _marks_of(delivery: Any) -> dict[str, float]:
    found = delivery.get(MARKS) if isinstance(delivery, dict) else None
    if not isinstance(found, dict):
        return {}
    # Times and counts: anything else somebody else has written, and it would not even be a float.
    return {name: value for name, value in found.items() if type(value) in (int, float) and 0 <= value < 2**53}


def _mapping(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ProtocolError(f"{key!r} of a message is a JSON object, not {type(value).__name__}.")
    return value


def _text(document: dict[str, Any], key: str, default: str) -> str:
    value = document.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise ProtocolError(f"{key!r} of a message is a text, not {type(value).__name__}.")
    return value


def _body(body: object, encoding: object) -> bytes:
    if not isinstance(body, str):
        raise ProtocolError(
            f"A message has its body as a text, not {type(body).__name__}; this was not sent by Celery or aioretryq."
        )
    try:
        if encoding == "base64":
            return bytes_of(body)
        if encoding is None or encoding == "utf-8":
            return body.encode()
    except ValueError as error:
        raise ProtocolError(f"The body of a message is not {encoding or 'utf-8'}: {error}.") from error
    raise ProtocolError(f"Unknown body_encoding {encoding!r}; it is base64 or utf-8.")
