"""What is written on a message only while it is parked."""

from __future__ import annotations

from aioretryq.protocol.envelope import without_marks

WAITED = ("parked", "slot")
"""Marks by which a worker of ours knows that a message has waited, and runs it at once."""


def as_not_parked(body: bytes) -> bytes:
    """The message as it was before it was parked; what has been counted of it stays, and what is no message too."""
    return without_marks(body, WAITED)
