"""Parts of chords that are counted in the transaction which acknowledges their messages."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from aioretryq.backends import sqlite_chords

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from aioretryq.message import ChordPart


def count(connection: sqlite3.Connection, parts: Sequence[ChordPart], now: float) -> bool:
    """Count them all, or none where one of them might be the last one of its chord."""
    needed = Counter(part.group_id for part in parts)
    if any(sqlite_chords.room(connection, group_id, now) < number for group_id, number in needed.items()):
        return False
    for part in parts:
        sqlite_chords.count(connection, part, now)
    return True
