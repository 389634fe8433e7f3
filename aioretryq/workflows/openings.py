"""Chords as a result backend opens them, by the settings of whoever does. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioretryq.message import ChordOpening

if TYPE_CHECKING:
    from aioretryq.config import Settings
    from aioretryq.workflows.plan import Opening


def life_of_chords(settings: Settings) -> float | None:
    """Seconds until a chord is forgotten; None for never."""
    asked = settings.result_chord_expires
    return (settings.result_expires if asked is None else asked) or None


def opened(opening: Opening, settings: Settings, sending: float | None = None, token: str = "") -> ChordOpening:
    return ChordOpening(opening.group_id, opening.size, life_of_chords(settings), opening.body, sending, token)
