"""Chords in an SQLite file: what is counted, and who may send the body. Each function is (part of) a transaction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import Struct

from aioretryq.backends import chord_rules as rules

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from aioretryq.message import ChordAddition, ChordClaim, ChordPart


class Row(Struct, frozen=True):
    """What is known of a chord; moments are of the wall clock, None never."""

    size: int | None
    counted: int
    sender: str | None
    held: float | None
    bound: str | None
    done: float | None
    expires: float | None
    sending: float | None
    doomed: float | None
    verdict: str | None
    opener: str


_COLUMNS = ", ".join(Row.__struct_fields__)


def read(connection: sqlite3.Connection, group_id: str) -> Row | None:
    found = connection.execute(f"SELECT {_COLUMNS} FROM chords WHERE group_id = ?", (group_id,)).fetchone()
    return None if found is None else Row(*found)


def count(connection: sqlite3.Connection, part: ChordPart, now: float) -> bool:
    """Also of one that is no part, but asks for the right to tell what has become of an overdue chord."""
    forget_old(connection, part.group_id, now)
    if part.why is not None:
        return _rescue(connection, part, now)
    connection.execute("INSERT OR IGNORE INTO chords (group_id) VALUES (?)", (part.group_id,))
    ((done,),) = connection.execute("SELECT done FROM chords WHERE group_id = ?", (part.group_id,)).fetchall()
    if done is not None:
        return False
    new = connection.execute(
        "INSERT OR IGNORE INTO chord_parts (group_id, task_id, position, content) VALUES (?, ?, ?, ?)",
        (part.group_id, part.task_id, part.index, part.content),
    ).rowcount
    soon = None if part.ttl is None else now + part.ttl / 2
    connection.execute(
        "UPDATE chords SET expires = ?, life = ?, look = min(look, ifnull(?, look)) WHERE group_id = ?",
        (end(part.ttl, now), part.ttl, soon, part.group_id),
    )
    chord = read(connection, part.group_id)
    assert chord is not None
    return chord.size == chord.counted and _claim(connection, chord, part, now, new=bool(new))


def _claim(connection: sqlite3.Connection, chord: Row, part: ChordPart, now: float, *, new: bool) -> bool:
    if chord.sender != part.token:
        taken = chord.sender is not None and chord.held is not None and chord.held > now
        if taken or (not new and chord.bound not in (None, part.token)):
            return False
    held = now + part.hold
    connection.execute(
        "UPDATE chords SET sender = ?, held = ?, bound = ? WHERE group_id = ?",
        (part.token, held, part.token if part.returns else chord.bound, part.group_id),
    )
    if not part.returns:  # somebody has to look what has become of it
        looked = "UPDATE chords SET look = ? WHERE group_id = ? AND look IS NOT NULL"
        connection.execute(looked, (held, part.group_id))
    return True


def _rescue(connection: sqlite3.Connection, part: ChordPart, now: float) -> bool:
    chord = read(connection, part.group_id)
    if chord is None or chord.done is not None:
        return False
    if part.why == "complete":
        return chord.size == chord.counted and _claim(connection, chord, part, now, new=False)
    if chord.sender not in (None, part.token) and chord.held is not None and chord.held > now:
        return False
    if chord.verdict is None:
        if not _is_overdue(chord, part, now):
            return False
        # Without its size no part completes it any more.
        connection.execute(
            "UPDATE chords SET verdict = ?, size = NULL, look = NULL, expires = ? WHERE group_id = ?",
            (part.token, end(part.ttl, now), part.group_id),
        )
    elif chord.verdict != part.token:
        return False
    holding = "UPDATE chords SET sender = ?, held = ? WHERE group_id = ?"
    connection.execute(holding, (part.token, now + part.hold, part.group_id))
    return True


def _is_overdue(chord: Row, part: ChordPart, now: float) -> bool:
    """Nobody has spoken for it since it was told."""
    if part.why == "unsent":
        missing = chord.size != chord.counted and chord.bound is None
        return missing and chord.sending is not None and chord.sending <= now
    return chord.doomed is not None and chord.doomed == chord.expires


def add(connection: sqlite3.Connection, additions: Sequence[ChordAddition], now: float) -> None:
    for each in additions:
        forget_old(connection, each.group_id, now)
        opening = "INSERT OR IGNORE INTO chords (group_id, expires) VALUES (?, ?)"
        connection.execute(opening, (each.group_id, end(each.ttl, now)))
        adding = """INSERT OR IGNORE INTO chord_additions
            SELECT group_id, ? FROM chords WHERE group_id = ? AND done IS NULL"""
        added = connection.execute(adding, (each.task_id, each.group_id)).rowcount
        # Into its size, too: those who have opened the file with an earlier layout know only that.
        adding = "UPDATE chords SET added = added + ?, size = size + ? WHERE group_id = ?"
        connection.execute(adding, (added, added, each.group_id))


def room(connection: sqlite3.Connection, group_id: str, now: float) -> float:
    """How many parts more it may count without being complete: none where it is closed."""
    chord = read(connection, group_id)
    if chord is None or (chord.expires is not None and chord.expires <= now):
        return math.inf
    if chord.done is not None:
        return 0
    return math.inf if chord.size is None else chord.size - chord.counted - 1  # None may be told later


def parts(connection: sqlite3.Connection, group_id: str, limit: int | None) -> list[bytes]:
    if limit is not None:
        size = "SELECT ifnull(sum(length(content)), 0) FROM chord_parts WHERE group_id = ?"
        rules.check_size(group_id, connection.execute(size, (group_id,)).fetchone()[0], limit)
    rows = connection.execute(
        "SELECT content FROM chord_parts WHERE group_id = ? ORDER BY position IS NULL, position, id", (group_id,)
    )
    return [content for (content,) in rows]


def is_watched(connection: sqlite3.Connection, group_id: str) -> bool:
    """Whether its body is known."""
    return connection.execute("SELECT 1 FROM chord_bodies WHERE group_id = ?", (group_id,)).fetchone() is not None


def is_held(connection: sqlite3.Connection, claim: ChordClaim, now: float) -> bool:
    chord = read(connection, claim.group_id)
    if chord is None or chord.done is not None or chord.sender != claim.token:
        return False
    return chord.held is not None and chord.held > now


def hold(connection: sqlite3.Connection, claim: ChordClaim, now: float, until: float) -> bool | None:
    """None where nothing is known of it any more."""
    held = connection.execute(
        """UPDATE chords SET sender = ?, held = ?
        WHERE group_id = ? AND done IS NULL AND (size IS NOT NULL OR verdict = ?)
        AND (sender = ? OR ifnull(held, 0) <= ?)""",
        (claim.token, until, claim.group_id, claim.token, claim.token, now),
    )
    if held.rowcount == 1:
        return True
    chord = read(connection, claim.group_id)
    gone = chord is None or (chord.done is None and chord.size is None and chord.verdict is None)
    return None if gone else False


def close(connection: sqlite3.Connection, claims: Sequence[ChordClaim], now: float) -> None:
    for claim in claims:
        closed = connection.execute(
            """UPDATE chords SET done = ?, expires = ? + CASE WHEN verdict IS NULL THEN ? ELSE ? END,
                look = NULL
            WHERE group_id = ? AND sender = ?""",
            (now, now, rules.REMEMBERED, rules.FAILED_REMEMBERED, claim.group_id, claim.token),
        )
        if closed.rowcount:
            for table in ("chord_parts", "chord_bodies", "chord_additions"):
                connection.execute(f"DELETE FROM {table} WHERE group_id = ?", (claim.group_id,))


def clean(connection: sqlite3.Connection, now: float) -> None:
    over = "SELECT group_id FROM chords WHERE expires <= ?"
    connection.execute(f"DELETE FROM chord_parts WHERE group_id IN ({over})", (now,))
    connection.execute("DELETE FROM chords WHERE expires <= ?", (now,))


def forget_old(connection: sqlite3.Connection, group_id: str, now: float, *, also_closed: bool = False) -> None:
    """`also_closed`: if its body was sent, or somebody tells that it has failed."""
    over = "group_id = ? AND (expires <= ? OR (? AND (done IS NOT NULL OR verdict IS NOT NULL)))"
    old = connection.execute(f"DELETE FROM chords WHERE {over}", (group_id, now, also_closed))
    if old.rowcount:
        connection.execute("DELETE FROM chord_parts WHERE group_id = ?", (group_id,))


def end(ttl: float | None, now: float) -> float | None:
    return None if ttl is None else now + ttl
