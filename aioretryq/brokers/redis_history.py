"""What a message of Redis tells of its earlier deliveries: the counts are kept in the message itself.

Kombu's layout has no other place that survives a restore by a Celery worker. What is no message of Celery's form
cannot carry counts, and always looks new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aioretryq.errors import ProtocolError
from aioretryq.protocol.envelope import MARKS, decode, encode, mark_redelivered

if TYPE_CHECKING:
    from aioretryq.message import Delivery, Outgoing


class History(NamedTuple):
    """As `Delivery` has it."""

    redelivered: bool = False
    deliveries: int = 1
    interruptions: int = 0


NEW = History()
COUNTS = ("deliveries", "interruptions")
_MARKS_KEY = f'"{MARKS}"'.encode()


def history(body: bytes) -> History:
    """Of a message that is taken now."""
    # Counts are never written without this word: nearly all messages are spared being read.
    if b"redelivered" not in body:
        return NEW
    try:
        envelope = decode(body)
    except ProtocolError:
        return NEW
    info = envelope.properties.get("delivery_info")
    info = info if isinstance(info, dict) else {}
    if not (info.get("redelivered") or envelope.headers.get("redelivered")):
        return NEW
    marks = info.get(MARKS)
    marks = marks if isinstance(marks, dict) else {}
    interruptions = _count(marks.get("interruptions"))
    # A Celery worker that restores a message does not count: it was delivered once, at least.
    unknown = 0 if interruptions else 1
    return History(True, _count(marks.get("deliveries"), unknown) + 1, interruptions)


def _count(value: object, unknown: int = 0) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else unknown


def as_counted(message: Outgoing) -> bytes:
    """The body with what is counted of it so far; what an earlier life of the message has left there is gone."""
    if message.deliveries or message.interruptions:
        return mark_redelivered(message.body, deliveries=message.deliveries, interruptions=message.interruptions)
    return _uncounted(message.body)


def _uncounted(body: bytes) -> bytes:
    if b"redelivered" not in body and _MARKS_KEY not in body:  # nearly all: spares reading the document
        return body
    try:
        envelope = decode(body)
    except ProtocolError:
        return body
    envelope.headers.pop("redelivered", None)
    info = envelope.properties.get("delivery_info")
    if isinstance(info, dict):
        info = {name: value for name, value in info.items() if name != "redelivered"}
        if isinstance(marks := info.pop(MARKS, None), dict):
            # Our other marks are not counts: they stay.
            kept = {name: value for name, value in marks.items() if name not in COUNTS}
            info |= {MARKS: kept} if kept else {}
        envelope.properties["delivery_info"] = info
    return encode(envelope)


def after_crash(body: bytes) -> bytes:
    """The message, put back because its holder is gone: that delivery counts."""
    return mark_redelivered(body, deliveries=history(body).deliveries)


def after_interruption(delivery: Delivery) -> bytes:
    """The message, handed back by its holder: the delivery is taken back."""
    return mark_redelivered(
        delivery.body, deliveries=delivery.deliveries - 1, interruptions=delivery.interruptions + 1
    )
