"""Entries of the dead-letter queue: the original bytes, and why they are there. JSON."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import orjson

from aioretryq.errors import ProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that could not be processed. `payload` is the message as it came; `time` in unix seconds."""

    reason: str
    queue: str
    payload: bytes
    time: float
    worker: str
    task: str | None = None
    task_id: str | None = None
    error: str | None = None


def encode_dead_letter(letter: DeadLetter) -> bytes:
    return orjson.dumps(
        {
            "reason": letter.reason,
            "queue": letter.queue,
            "task": letter.task,
            "task_id": letter.task_id,
            "time": letter.time,
            "worker": letter.worker,
            "error": letter.error,
            "payload": base64.b64encode(letter.payload).decode(),
        }
    )


def decode_dead_letter(entry: bytes) -> DeadLetter:
    try:
        fields: dict[str, Any] = orjson.loads(entry)
        payload = base64.b64decode(fields.pop("payload"), validate=True)
        return DeadLetter(payload=payload, **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProtocolError(f"Not an entry of the dead letters: {error}") from error
