"""Chords in an SQLite file: those that are open, and which of them are overdue. Each is a transaction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from aioretryq.backends import chord_rules as rules
from aioretryq.backends.sqlite_chords import end, forget_old, read
from aioretryq.message import OverdueChord

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from aioretryq.message import ChordOpening, ChordPart

LOOKED_AT = 1000
"""Chords that one look for overdue ones goes through."""


def open_chords(connection: sqlite3.Connection, openings: Sequence[ChordOpening], now: float) -> None:
    for opening in openings:
        forget_old(connection, opening.group_id, now, also_done=True)
        connection.execute(
            """INSERT INTO chords (group_id, size, expires) VALUES (?, ?, ?)
            ON CONFLICT (group_id) DO UPDATE
            SET size = ifnull(excluded.size, size), expires = excluded.expires, told = 0, verdict = NULL""",
            (opening.group_id, opening.size, end(opening.ttl, now)),
        )
        _watch(connection, opening.group_id, opening.body, opening.ttl, now)
        _sending(connection, opening, now)


def amend(connection: sqlite3.Connection, openings: Sequence[ChordOpening], now: float) -> None:
    for opening in openings:
        forget_old(connection, opening.group_id, now)
        # All parts may be there already.
        amended = connection.execute(
            """UPDATE chords SET size = ifnull(?, size), expires = ?, look = ?
            WHERE group_id = ? AND done IS NULL AND verdict IS NULL AND opened IS NOT NULL""",
            (opening.size, end(opening.ttl, now), now, opening.group_id),
        )
        if amended.rowcount:
            _sending(connection, opening, now)


def adopt(connection: sqlite3.Connection, part: ChordPart, now: float) -> None:
    """What the chord's part knows of it."""
    chord = read(connection, part.group_id)
    if part.body and chord is not None and chord.done is None and not _body(connection, part.group_id):
        _watch(connection, part.group_id, part.body, part.ttl, now)


def _watch(connection: sqlite3.Connection, group_id: str, body: bytes, ttl: float | None, now: float) -> None:
    look = rules.first_look(now, math.inf if ttl is None else ttl, None)
    connection.execute(
        "UPDATE chords SET opened = ?, life = ?, look = ? WHERE group_id = ?", (now, ttl, look, group_id)
    )
    if body:
        connection.execute("INSERT OR REPLACE INTO chord_bodies VALUES (?, ?)", (group_id, body))


def _sending(connection: sqlite3.Connection, opening: ChordOpening, now: float) -> None:
    until = None if opening.sending is None else now + opening.sending
    renewed = "UPDATE chords SET sending = ?, look = ifnull(?, look) WHERE group_id = ?"
    connection.execute(renewed, (until, until, opening.group_id))


def _body(connection: sqlite3.Connection, group_id: str) -> bytes:
    found = connection.execute("SELECT body FROM chord_bodies WHERE group_id = ?", (group_id,)).fetchone()
    return b"" if found is None else found[0]


def due(connection: sqlite3.Connection, now: float) -> bool:
    """Whether any chord has to be looked at."""
    return bool(connection.execute("SELECT 1 FROM chords WHERE look <= ? LIMIT 1", (now,)).fetchall())


def overdue(connection: sqlite3.Connection, patience: float, limit: int, now: float) -> list[OverdueChord]:
    rows = connection.execute(
        """SELECT group_id, counted, size + added, opened, ifnull(expires, ?), ifnull(life, ?), held,
            bound IS NOT NULL, sending, told
        FROM chords WHERE look <= ? AND (expires IS NULL OR expires > ?) ORDER BY look LIMIT ?""",
        (math.inf, math.inf, now, now, LOOKED_AT),
    ).fetchall()
    found: list[OverdueChord] = []
    for row in rows:
        if len(found) == limit:
            break
        if told := _look(connection, row, now, patience):
            found.append(told)
    # Those that were forgotten meanwhile are cleaned up with all others.
    connection.execute("UPDATE chords SET look = NULL WHERE look <= ? AND expires <= ?", (now, now))
    return found


def _look(connection: sqlite3.Connection, row: Sequence[Any], now: float, patience: float) -> OverdueChord | None:
    group_id, counted, size, opened, expires, life, held, bound, sending, told = row
    seen = rules.Seen(counted, size, opened, expires, life, held, bool(bound), sending)
    body = _body(connection, group_id)
    why = rules.why_overdue(seen, now, patience) if body else None
    if why is None:
        looking = "UPDATE chords SET look = ? WHERE group_id = ?"
        connection.execute(looking, (rules.next_look(seen, now, patience), group_id))
        return None
    look, margin = rules.next_telling(told + 1, life, now, patience), rules.margin_of(life, patience)
    connection.execute(
        """UPDATE chords SET look = ?, told = told + 1, margin = ifnull(?, margin), expires = max(expires, ?)
        WHERE group_id = ?""",
        (look, margin if why == "expired" else None, now + margin, group_id),
    )
    return OverdueChord(group_id, body, why, told + 1, counted, size, now - opened)
