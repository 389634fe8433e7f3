"""Events: what workers and clients tell those who watch (celery/events/event.py), as values and as bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson

from aioretryq.errors import EncodeError, ProtocolError
from aioretryq.protocol import envelope, jsontypes
from aioretryq.protocol.content import decode_content
from aioretryq.protocol.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

LARGEST = 2**20
"""Bytes of a message of events; larger ones are neither sent nor read."""

LONGEST = 2**14
"""Characters of a text in an event that we send; arguments and results are usually cut to a thousand before."""

_NAME = LONGEST
_COMMON = frozenset({"type", "hostname", "timestamp", "utcoffset", "pid", "clock"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened: `type` is `task-received`, `worker-heartbeat` and so on.

    `timestamp` is the sender's unix time, `clock` its Lamport clock, `utcoffset` its hours west of UTC. `fields` has
    what only some events have; of what type the values are is up to the sender. `received` is the receiver's unix
    time; 0 in an event that nobody has received yet.
    """

    type: str
    hostname: str
    timestamp: float
    utcoffset: float = 0.0
    pid: int | None = None
    clock: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)
    received: float = 0.0

    @property
    def uuid(self) -> str | None:
        """The id of the task that it is about."""
        found = self.fields.get("uuid")
        return found if isinstance(found, str) else None

    def as_dict(self) -> dict[str, Any]:
        """As it travels."""
        return {
            "type": self.type,
            "hostname": self.hostname,
            "timestamp": self.timestamp,
            "utcoffset": self.utcoffset,
            "pid": self.pid,
            "clock": self.clock,
            **self.fields,
        }


def routing_key(kind: str) -> str:
    """Of an event that travels alone; several of one group, `task-*` say, go as a list to `task.multi`."""
    return kind.replace("-", ".")


def group_of(kind: str) -> str:
    return kind.partition("-")[0]


# -- writing


def encode_event(event: Mapping[str, Any]) -> bytes:
    """The JSON of one event, as `Event.as_dict` has it. Raises EncodeError for what JSON cannot hold, or too much.

    Long texts are cut, but for names and ids. Called for every step of every task: nothing is done that need not be.
    """
    data = _dumps(event)
    if len(data) > LONGEST:
        _check_names(event)
        data = _dumps({name: _clipped(value) for name, value in event.items()})
    if len(data) > LARGEST:
        raise EncodeError(f"An event {event['type']} has {len(data):,} bytes; at most {LARGEST:,} can be sent.")
    return data


def encode_events(events: Sequence[bytes], *, hostname: str, exchange: str, key: str) -> bytes:
    """The message of what `encode_event` made: of one event as it is, of several as a list."""
    body = events[0] if len(events) == 1 else b"[" + b",".join(events) + b"]"
    properties = {
        "delivery_mode": 1,
        "delivery_info": {"exchange": exchange, "routing_key": key},
        "priority": 0,
        "delivery_tag": str(uuid4()),
    }
    return envelope.encode(envelope.Envelope(body, headers={"hostname": hostname}, properties=properties))


def _check_names(event: Mapping[str, Any]) -> None:
    for name in ("type", "hostname", "uuid"):  # cut, they would name something else
        value = event.get(name)
        if isinstance(value, str) and len(value) > _NAME:
            raise EncodeError(f"The {name} of an event has {len(value):,} characters; at most {_NAME} can be sent.")


def _clipped(value: Any) -> Any:
    if type(value) is str and len(value) > LONGEST:  # a traceback says what matters at its end
        return f"{value[: LONGEST // 2]}\n...\n{value[-LONGEST // 2 :]}"
    return value


def _dumps(event: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(event, option=_OPTIONS)
    except (orjson.JSONEncodeError, RecursionError):  # what kombu has its own notation for, or a lone surrogate
        return jsontypes.dumps(event)


_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS

# -- reading


def sender_of(payload: bytes) -> str:
    """Who sent a message, as far as it says so: for a line in the log about one that cannot be read."""
    try:
        hostname = envelope.headers_of(payload).get("hostname")
    except ProtocolError:
        hostname = None
    return saferepr(hostname, 100) if isinstance(hostname, str) else "an unknown sender"


def decode_events(
    payload: bytes, *, accept_content: Collection[str] = ("json",), now: float
) -> list[Event | ProtocolError]:
    """The events in a message that was received at `now`, and in the place of one that is none, why.

    Raises ProtocolError for a message that cannot be read at all, and nothing else.
    """
    if len(payload) > LARGEST + LARGEST:  # base64, and the envelope
        raise ProtocolError(f"A message of events has {len(payload):,} bytes; that is too large.")
    found = envelope.decode(payload)
    body = decode_content(found.body, found.content_type, found.content_encoding, accept_content)
    documents = body if isinstance(body, list) else [body]
    sender = found.headers.get("hostname")
    return [_event_or_refusal(document, sender, now) for document in documents]


def _event_or_refusal(document: Any, sender: Any, now: float) -> Event | ProtocolError:
    try:
        return _event(document, sender, now)
    except ProtocolError as error:
        return error


def _event(document: Any, sender: Any, now: float) -> Event:
    if not isinstance(document, dict):
        raise ProtocolError(f"An event is an object, not {saferepr(document, 80)}.")
    kind = _name(document.get("type"), "type")
    hostname = document.get("hostname")
    fields = {name: value for name, value in document.items() if isinstance(name, str) and name not in _COMMON}
    if kind.startswith("task-"):
        _name(fields.get("uuid"), "uuid")
    return Event(
        type=kind,
        hostname=_name(sender if hostname is None else hostname, "hostname"),
        timestamp=_number(document.get("timestamp"), now),
        utcoffset=_number(document.get("utcoffset"), 0.0),
        pid=_whole(document.get("pid")),
        clock=_whole(document.get("clock")) or 0,
        fields=fields,
        received=now,
    )


def _name(value: Any, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _NAME:
        raise ProtocolError(f"The {what} of an event is a text, not {saferepr(value, 80)}.")
    return value


def _number(value: Any, default: float) -> float:
    if value is None:
        return default
    if type(value) not in (int, float) or not abs(value) < 2**53 or not math.isfinite(value):
        raise ProtocolError(f"A time in an event is a number, not {saferepr(value, 80)}.")
    return float(value)


def _whole(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < 2**63:
        raise ProtocolError(f"The pid and clock of an event are whole numbers, not {saferepr(value, 80)}.")
    return value
