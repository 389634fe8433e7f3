"""The usual message of a task, read and checked in one pass by a schema.

Nearly all messages of a fleet have the fields below, with values of these types. Whatever differs in anything goes to
`decode_task`, which says what a message means: nothing is read here that would be refused there, or be read as
something else. 6 instead of 14 us for a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from aioretryq.errors import ProtocolError
from aioretryq.message import TaskMessage
from aioretryq.protocol import jsontypes
from aioretryq.protocol.envelope import bytes_of
from aioretryq.protocol.signature import read_signature
from aioretryq.protocol.task import decode_task, moment_of, time_limits

if TYPE_CHECKING:
    from collections.abc import Collection

    from aioretryq.message import Signature
    from aioretryq.protocol.security import Security

Name = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=0, le=2**31)]
Priority = Annotated[int, Meta(ge=0, le=9)]

# Unknown fields are forbidden also where `decode_task` leaves them alone: what a schema skips is not read, and might
# be no text at all.


KNOWN_CHORDS = 32
LONGEST_CHORD = 64_000
"""Bytes of one that is kept."""


class _Headers(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    lang: Literal["py"]
    task: Name
    id: Name
    shadow: str | None = None
    eta: str | None = None
    expires: str | None = None
    group: str | None = None
    group_index: Count | None = None
    retries: Count | None = None
    timelimit: tuple[int | float | None, int | float | None] | None = None
    root_id: str | None = None
    parent_id: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: Count | None = None
    stamped_headers: None = None
    stamps: dict[str, None] | None = None  # empty: see `_message`
    compression: None = None


class _DeliveryInfo(Struct, forbid_unknown_fields=True, gc=False):
    exchange: str | None = None
    routing_key: str | None = None


class _Properties(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    body_encoding: Literal["base64"]
    delivery_info: _DeliveryInfo
    delivery_mode: Literal[2]
    delivery_tag: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    priority: Priority | None = None
    expiration: None = None


class _Document(Struct, forbid_unknown_fields=True, rename="kebab", gc=False):
    body: str
    content_encoding: Literal["utf-8"]
    content_type: Literal["application/json"]
    headers: _Headers
    properties: _Properties


class _Embed(Struct, forbid_unknown_fields=True, gc=False):
    callbacks: list[dict[str, Any]] | None = None
    errbacks: list[dict[str, Any]] | None = None
    chain: list[dict[str, Any]] | None = None
    chord: msgspec.Raw = msgspec.Raw(b"null")


_READER = msgspec.json.Decoder(_Document)
_BODY_READER = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], _Embed])
_CHORD_READER = msgspec.json.Decoder(dict[str, Any])
_NO_LIMITS = (None, None)
_UNLIMITED = (None, _NO_LIMITS)


def decode(
    payload: bytes, *, accept_content: Collection[str], max_size: int, security: Security | None
) -> TaskMessage:
    """As `decode_task`."""
    if "json" in accept_content:
        try:
            message = _message(_READER.decode(payload), security)
        except (ValueError, RecursionError):
            message = None
        if message is not None:
            return message
    return decode_task(payload, accept_content=accept_content, max_size=max_size, security=security)


def _message(document: _Document, security: Security | None) -> TaskMessage | None:
    """None where it is not the usual one after all."""
    headers, properties = document.headers, document.properties
    if headers.stamps:
        return None
    args, kwargs, embed = _call(document.body)
    hard, soft = time_limits(headers.timelimit) if headers.timelimit not in _UNLIMITED else _NO_LIMITS
    routing_key = properties.delivery_info.routing_key
    return TaskMessage(
        id=headers.id,
        task=headers.task,
        args=args,
        kwargs=kwargs,
        retries=headers.retries or 0,
        eta=moment_of(headers.eta) if headers.eta else None,
        expires=moment_of(headers.expires) if headers.expires else None,
        root_id=headers.root_id,
        parent_id=headers.parent_id,
        group=headers.group,
        group_index=headers.group_index,
        time_limit=hard,
        soft_time_limit=soft,
        ignore_result=headers.ignore_result,
        shadow=headers.shadow,
        argsrepr=headers.argsrepr,
        kwargsrepr=headers.kwargsrepr,
        origin=headers.origin,
        replaced_task_nesting=headers.replaced_task_nesting or 0,
        reply_to=properties.reply_to,
        correlation_id=properties.correlation_id,
        priority=properties.priority or 0,
        exchange=properties.delivery_info.exchange or "",
        routing_key="celery" if routing_key is None else routing_key,
        callbacks=embed.callbacks,
        errbacks=embed.errbacks,
        chain=embed.chain,
        chord=None if (chord := bytes(embed.chord)) == b"null" else _chord(chord),
        security=security,
    )


def _call(body: str) -> tuple[list[Any], dict[str, Any], _Embed]:
    """Arguments, and what is to follow from the task. ValueError where that is not the usual."""
    data = bytes_of(body)
    if jsontypes.has_types(data):
        raise ValueError
    return _BODY_READER.decode(data)


_shared: dict[bytes, Signature] = {}
_shared_by_id: dict[int, Signature] = {}


def _chord(data: bytes) -> Signature:
    """The same object for all messages that have it: a hundred thousand parts of a header carry one body."""
    chord = _shared.get(data)
    if chord is None:
        chord = _CHORD_READER.decode(data)
        if len(data) <= LONGEST_CHORD and _is_signature(chord):
            if len(_shared) >= KNOWN_CHORDS:
                _shared.clear()
                _shared_by_id.clear()
            _shared[data] = _shared_by_id[id(chord)] = chord
    return chord


def _is_signature(chord: Signature) -> bool:
    try:
        read_signature(chord)
    except ProtocolError:
        return False
    return True


def was_checked(chord: Signature) -> bool:
    """Whether it came with a message that was read here, and is known to be a signature."""
    return _shared_by_id.get(id(chord)) is chord
