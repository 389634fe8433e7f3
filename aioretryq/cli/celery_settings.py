"""What becomes of everything that can be set in Celery, as the tables of docs/migrating-from-celery.md."""

from __future__ import annotations

from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from aioretryq.celery_settings.options import RESULT_OPTIONS, TASK_OPTIONS, TRANSPORT_OPTIONS, WORKER_OPTIONS
from aioretryq.celery_settings.table import CELERY_SETTINGS, Row
from aioretryq.celery_settings.translation import verdict
from aioretryq.cli.worker import worker
from aioretryq.config import HINTS, Settings
from aioretryq.setting_values import fit
from aioretryq.task_options import FROM_SETTINGS, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

MADE_BY = "<!-- from here on made by: aioretryq settings --celery --markdown -->"


def _served(names: str) -> bool:
    ours = {flag for option in worker.params for flag in option.opts}
    return not ours.isdisjoint(names.split(", "))


_TABLES: tuple[tuple[str, str, Mapping[str, Row], Collection[str]], ...] = (
    ("Settings", "setting", CELERY_SETTINGS, HINTS),
    ("Keys of `broker_transport_options`", "key", TRANSPORT_OPTIONS, ()),
    ("Keys of `result_backend_transport_options`", "key", RESULT_OPTIONS, ()),
    ("Options of a task", "option", TASK_OPTIONS, {*OPTIONS, *FROM_SETTINGS}),
    ("Options of `celery worker`", "option", WORKER_OPTIONS, [names for names in WORKER_OPTIONS if _served(names)]),
)
"""Title, what a row is about, the rows, and which of them exist here, whatever the row says."""


def as_text() -> str:
    """For the terminal: a line each, under the titles of the tables."""
    parts = []
    for title, _, rows, known in _TABLES:
        lines = [f"{row.name:<56} {said:<16} {note}".rstrip() for row, said, note in _lines(rows, known)]
        parts.append("\n".join([title.replace("`", ""), *(f"  {line}" for line in lines)]))
    return "\n\n".join(parts)


def as_markdown() -> str:
    """The tables of the page; neighbours of which the same is said share a line."""
    parts = [MADE_BY, ""]
    for title, what, rows, known in _TABLES:
        parts += [f"### {title}", "", f"| {what} | verdict | how, why, or what instead |", "| --- | --- | --- |"]
        for (said, note), group in groupby(_lines(rows, known), key=lambda line: (line[1], line[2])):
            names = ", ".join(f"`{row.name}`" for row, _, _ in group)
            parts.append(f"| {names} | {said} | {note} |")
        parts.append("")
    return "\n".join(parts)


def _lines(rows: Mapping[str, Row], known: Collection[str]) -> Iterator[tuple[Row, str, str]]:
    """(row, verdict, note) of each, as it is by now."""
    for row in rows.values():
        found = verdict(row, known)
        outdated = found is not row.verdict
        note = "" if outdated else row.note
        if rows is CELERY_SETTINGS:
            note = note or _defaults(row)
        yield row, f"{found}: error" if row.error and not outdated else str(found), note


def _defaults(row: Row) -> str:
    if row.name not in HINTS:
        return ""
    ours = getattr(Settings(), row.name)
    theirs: Any = row.default.total_seconds() if isinstance(row.default, timedelta) else row.default
    return "" if _same(row.name, ours, theirs) else f"Default here `{ours!r}`, in Celery `{theirs!r}`."


def _same(name: str, ours: Any, theirs: Any) -> bool:
    if theirs is None:
        return not ours
    try:
        return bool(fit(HINTS[name], theirs) == ours)
    except TypeError:
        return False
