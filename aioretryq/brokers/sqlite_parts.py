"""Chords, in the transaction which acknowledges messages: parts that are counted, bodies that are sent."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from aioretryq.backends import sqlite_chords

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from aioretryq.message import ChordClaim, ChordPart


def count(connection: sqlite3.Connection, parts: Sequence[ChordPart], now: float) -> bool:
    """Count them all, or none where one of them might be the last one of its chord, or has to tell the body."""
    needed = Counter(part.group_id for part in parts)
    if any(part.body is not None and not sqlite_chords.is_watched(connection, part.group_id) for part in parts):
        return False
    if any(sqlite_chords.room(connection, group_id, now) < number for group_id, number in needed.items()):
        return False
    for part in parts:
        sqlite_chords.count(connection, part, now)
    return True


def close(connection: sqlite3.Connection, claims: Sequence[ChordClaim], now: float) -> bool:
    """Close them all, or none where one of them is not the claim's (any more)."""
    if not all(sqlite_chords.is_held(connection, claim, now) for claim in claims):
        return False
    sqlite_chords.close(connection, claims, now)
    return True
