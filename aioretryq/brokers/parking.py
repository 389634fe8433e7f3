"""What is written on a message only while it is parked."""

from __future__ import annotations

from aioretryq.errors import ProtocolError
from aioretryq.protocol.envelope import MARKS, decode, encode

WAITED = ("parked", "slot")
"""Marks by which a worker of ours knows that a message has waited, and runs it at once."""


def as_not_parked(body: bytes) -> bytes:
    """The message as it was before it was parked; what has been counted of it stays, and what is no message too."""
    if b'"delivery_info"' not in body or b'"aioretryq"' not in body:  # spares reading the document
        return body
    try:
        found = decode(body)
    except ProtocolError:
        return body
    delivery = found.properties.get("delivery_info")
    marks = delivery.get(MARKS) if isinstance(delivery, dict) else None
    if not isinstance(delivery, dict) or not isinstance(marks, dict) or not any(name in marks for name in WAITED):
        return body
    kept = {name: value for name, value in marks.items() if name not in WAITED}
    rest = {name: value for name, value in delivery.items() if name != MARKS}
    found.properties["delivery_info"] = rest | ({MARKS: kept} if kept else {})
    return encode(found)
