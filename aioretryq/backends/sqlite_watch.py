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
        forget_old(connection, opening.group_id, now)
        chord = read(connection, opening.group_id)
        if chord is not None and (chord.done is not None or chord.verdict is not None):
            if opening.token and chord.opener == opening.token:
                continue
            forget_old(connection, opening.group_id, now, also_closed=True)
        connection.execute(
            """INSERT INTO chords (group_id, size, expires, opener) VALUES (?, ?, ?, ?)
            ON CONFLICT (group_id) DO UPDATE
            SET size = ifnull(excluded.size + added, size), expires = excluded.expires, opener = excluded.opener,
                told = 0, doomed = NULL""",
            (opening.group_id, opening.size, end(opening.ttl, now), opening.token),
        )
        _watch(connection, opening.group_id, opening.body, opening.ttl, now)
        _sending(connection, opening, now)


def amend(connection: sqlite3.Connection, openings: Sequence[ChordOpening], now: float) -> list[bool]:
    amended = []
    for opening in openings:
        forget_old(connection, opening.group_id, now)
        # All parts may be there already.
        changed = connection.execute(
            """UPDATE chords SET size = ifnull(? + added, size), expires = ?, life = ?, look = ?
            WHERE group_id = ? AND done IS NULL AND verdict IS NULL AND opened IS NOT NULL""",
            (opening.size, end(opening.ttl, now), opening.ttl, now, opening.group_id),
        )
        amended.append(changed.rowcount == 1)
        if amended[-1]:
            _sending(connection, opening, now)
    return amended


def adopt(connection: sqlite3.Connection, part: ChordPart, now: float) -> None:
    """What the chord's part knows of it."""
    chord = read(connection, part.group_id)
    if chord is None or chord.done is not None or chord.verdict is not None:
        return
    if part.body and not _body(connection, part.group_id):
        _watch(connection, part.group_id, part.body, part.ttl, now)


def _watch(connection: sqlite3.Connection, group_id: str, body: bytes, ttl: float | None, now: float) -> None:
    look = rules.first_look(now, math.inf if ttl is None else ttl)
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


def overdue(
    connection: sqlite3.Connection, patience: float, limit: int, now: float
) -> tuple[list[OverdueChord], bool]:
    """And whether there are others to look at."""
    rows = connection.execute(
        """SELECT group_id, counted, size, opened, ifnull(expires, ?), ifnull(life, ?), held,
            bound IS NOT NULL, sending, told
        FROM chords WHERE look <= ? AND (expires IS NULL OR expires > ?) AND done IS NULL ORDER BY look LIMIT ?""",
        (math.inf, math.inf, now, now, LOOKED_AT),
    ).fetchall()
    found: list[OverdueChord] = []
    size = 0
    for row in rows:
        if len(found) == limit or size > rules.ENOUGH:
            break
        if told := _look(connection, row, now, patience):
            found.append(told)
            size += len(told.body)
    # Those that were forgotten meanwhile are cleaned up with all others.
    # An earlier layout closes chords without knowing of looks.
    over = "UPDATE chords SET look = NULL WHERE look <= ? AND (expires <= ? OR done IS NOT NULL)"
    connection.execute(over, (now, now))
    return found, len(rows) == LOOKED_AT


def _look(connection: sqlite3.Connection, row: Sequence[Any], now: float, patience: float) -> OverdueChord | None:
    group_id, counted, size, opened, expires, life, held, bound, sending, told = row
    seen = rules.Seen(counted, size, opened, expires, life, held, bool(bound), sending)
    body = _body(connection, group_id)
    why = rules.why_overdue(seen, now, patience) if body else None
    if why is None:
        looking = "UPDATE chords SET look = ? WHERE group_id = ?"
        connection.execute(looking, (rules.next_look(seen, now, patience), group_id))
        return None
    look = rules.next_telling(told + 1, now, patience)
    kept = max(expires, rules.kept_until(life, told + 1, now, patience))
    connection.execute(
        "UPDATE chords SET look = ?, told = told + 1, doomed = ?, expires = ? WHERE group_id = ?",
        (look, kept if why == "expired" else None, None if kept == math.inf else kept, group_id),
    )
    return OverdueChord(group_id, body, why, told + 1, counted, size, now - opened)
