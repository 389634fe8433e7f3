"""Chords in an SQLite file: what is counted, and who may send the body. Each function is (part of) a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from aioretryq.message import ChordClaim, ChordOpening, ChordPart

REMEMBERED = 300.0
"""Seconds for which a closed chord is not begun anew by a part that comes late."""


def open_chords(connection: sqlite3.Connection, openings: Sequence[ChordOpening], now: float) -> None:
    for opening in openings:
        _forget_old(connection, opening.group_id, now, also_done=True)
        connection.execute(
            """INSERT INTO chords (group_id, size, expires) VALUES (?, ?, ?)
            ON CONFLICT (group_id) DO UPDATE SET size = excluded.size, expires = excluded.expires""",
            (opening.group_id, opening.size, _end(opening.ttl, now)),
        )


def count(connection: sqlite3.Connection, part: ChordPart, now: float) -> bool:
    _forget_old(connection, part.group_id, now)
    connection.execute("INSERT OR IGNORE INTO chords (group_id) VALUES (?)", (part.group_id,))
    size, sender, held, bound, done = connection.execute(
        "SELECT size, sender, held, bound, done FROM chords WHERE group_id = ?", (part.group_id,)
    ).fetchone()
    if done is not None:
        return False
    added = connection.execute(
        "INSERT OR IGNORE INTO chord_parts (group_id, task_id, position, content) VALUES (?, ?, ?, ?)",
        (part.group_id, part.task_id, part.index, part.content),
    ).rowcount
    expires = (_end(part.ttl, now), part.group_id)
    connection.execute("UPDATE chords SET expires = ? WHERE group_id = ?", expires)
    counting = "SELECT count(*) FROM chord_parts WHERE group_id = ?"
    ((counted,),) = connection.execute(counting, (part.group_id,)).fetchall()
    if size != counted:
        return False
    if sender != part.token:
        taken = sender is not None and held > now
        if taken or (not added and bound not in (None, part.token)):
            return False
    connection.execute(
        "UPDATE chords SET sender = ?, held = ?, bound = ? WHERE group_id = ?",
        (part.token, now + part.hold, part.token if part.returns else bound, part.group_id),
    )
    return True


def parts(connection: sqlite3.Connection, group_id: str) -> list[bytes]:
    rows = connection.execute(
        "SELECT content FROM chord_parts WHERE group_id = ? ORDER BY position IS NULL, position, id", (group_id,)
    )
    return [content for (content,) in rows]


def hold(connection: sqlite3.Connection, claim: ChordClaim, now: float, until: float) -> bool:
    held = connection.execute(
        """UPDATE chords SET sender = ?, held = ?
        WHERE group_id = ? AND done IS NULL AND size IS NOT NULL AND (sender = ? OR ifnull(held, 0) <= ?)""",
        (claim.token, until, claim.group_id, claim.token, now),
    )
    return held.rowcount == 1


def close(connection: sqlite3.Connection, claims: Sequence[ChordClaim], now: float) -> None:
    for claim in claims:
        closed = connection.execute(
            "UPDATE chords SET done = ?, expires = ? WHERE group_id = ? AND sender = ?",
            (now, now + REMEMBERED, claim.group_id, claim.token),
        )
        if closed.rowcount:
            connection.execute("DELETE FROM chord_parts WHERE group_id = ?", (claim.group_id,))


def clean(connection: sqlite3.Connection, now: float) -> None:
    over = "SELECT group_id FROM chords WHERE expires <= ?"
    connection.execute(f"DELETE FROM chord_parts WHERE group_id IN ({over})", (now,))
    connection.execute("DELETE FROM chords WHERE expires <= ?", (now,))


def _forget_old(connection: sqlite3.Connection, group_id: str, now: float, *, also_done: bool = False) -> None:
    over = "group_id = ? AND (expires <= ? OR (? AND done IS NOT NULL))"
    old = connection.execute(f"DELETE FROM chords WHERE {over}", (group_id, now, also_done))
    if old.rowcount:
        connection.execute("DELETE FROM chord_parts WHERE group_id = ?", (group_id,))


def _end(ttl: float | None, now: float) -> float | None:
    return None if ttl is None else now + ttl
