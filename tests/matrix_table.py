"""The matrix of tests/interop as a table, from the reports of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SIGNS = {"passed": "ok", "failed": "FAILED", "error": "ERROR"}


def cells(stats: dict[str, list[Any]]) -> dict[tuple[str, str, str], tuple[str, str | None]]:
    """(case, client, worker) -> how it ended, and why it was left out."""
    found: dict[tuple[str, str, str], tuple[str, str | None]] = {}
    for outcome in ("passed", "skipped", "failed", "error"):
        for report in stats.get(outcome, ()):
            for name, value in getattr(report, "user_properties", ()):
                if name == "matrix":
                    case, client, worker, hole = value
                    found[case, client, worker] = (SIGNS.get(outcome, outcome), hole)
    return found


def lines(stats: dict[str, list[Any]]) -> Iterable[str]:
    """Nothing, if the matrix was not run."""
    found = cells(stats)
    columns = list(dict.fromkeys((client, worker) for _, client, worker in found))
    if not columns:
        return
    names = {"celery": "Celery worker", "ours": "our worker", "both": "both kinds"}
    heads = [f"{client} > {names.get(worker, worker)}" for client, worker in columns]
    cases = list(dict.fromkeys(case for case, _, _ in found))
    first = max(map(len, cases))
    yield "  ".join([" " * first, *heads])
    notes: dict[str, str] = {}
    for case in cases:
        row = []
        for (client, worker), head in zip(columns, heads, strict=True):
            sign, hole = found.get((case, client, worker), ("not run", None))
            if hole is not None:
                sign = notes.setdefault(hole, f"[{len(notes) + 1}]")
            row.append(sign.ljust(len(head)))
        yield "  ".join([case.ljust(first), *row]).rstrip()
    yield from (f"{sign} {hole}" for hole, sign in notes.items())
