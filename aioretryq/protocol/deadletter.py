"""Entries of the dead-letter queue: the original bytes, and why they are there. JSON."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import orjson

from aioretryq.errors import ProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that could not be processed.

    `payload` is the message as it came, `time` in unix seconds, `error` the last one. `errors` are those of the
    attempts before, oldest first, each `{"attempt": int, "time": float, "worker": str, "error": str}`.
    """

    reason: str
    queue: str
    payload: bytes
    time: float
    worker: str
    priority: int = 0
    task: str | None = None
    task_id: str | None = None
    error: str | None = None
    traceback: str | None = None
    attempts: int = 0
    deliveries: int = 1
    interruptions: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)


def entry_id(now: float, unique: str) -> str:
    """An id that sorts by age: microseconds as 16 hexadecimal digits, then what makes it unique."""
    return f"{max(0, int(now * 1e6)):016x}-{unique}"


def entry_time(entry_id: str) -> float:
    """The unix time in an id; ProtocolError if it is none of `entry_id`."""
    try:
        return int(entry_id[:16], 16) / 1e6
    except ValueError:
        raise ProtocolError(f"{entry_id!r} is not the id of a dead letter.") from None


def encode_dead_letter(letter: DeadLetter) -> bytes:
    fields = {name: getattr(letter, name) for name in DeadLetter.__slots__}
    fields["payload"] = base64.b64encode(letter.payload).decode()
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError:  # a lone surrogate in an error's text or in a name
        return json.dumps(fields).encode()


def decode_dead_letter(content: bytes) -> DeadLetter:
    """Raises ProtocolError, and nothing else. Fields that a newer writer has added are left out."""
    try:
        fields: dict[str, Any] = json.loads(content)
        payload = base64.b64decode(fields.pop("payload"), validate=True)
        known = {name: value for name, value in fields.items() if name in DeadLetter.__slots__}
        return DeadLetter(payload=payload, **known)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"Not an entry of the dead letters: {error}") from error
