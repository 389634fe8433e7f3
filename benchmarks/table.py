"""Aligned tables of absolute values and their ratios to aioretryq's in the same run."""

from __future__ import annotations

import os
import platform
import statistics
from typing import TYPE_CHECKING

from benchmarks.contenders import ENTRIES, OURS, installed, missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.measurements.model import Column, Measurement
    from benchmarks.runner import Outcome, Row


def render(measurement: Measurement, outcomes: Mapping[Row, Outcome]) -> str:
    """One table. The base of the ratios is the first row of aioretryq that has numbers."""
    measured = {row: outcome for row, outcome in outcomes.items() if not outcome.failure}
    base = next((outcome for row, outcome in measured.items() if row.contender == OURS), None)
    head = ["", *[heading for column in measurement.columns for heading in headings(column)]]
    body = [[row.label, *cells(measurement, outcome, base)] for row, outcome in measured.items()]
    failed = [f"{row.label}: {outcome.failure}" for row, outcome in outcomes.items() if outcome.failure]
    return "\n".join([*aligned([head, *body]), *failed])


def headings(column: Column) -> list[str]:
    return [column.heading, "ratio"] if column.ratio else [column.heading]


def cells(measurement: Measurement, outcome: Outcome, base: Outcome | None) -> Iterator[str]:
    for column in measurement.columns:
        values = values_of(outcome, column.key)
        yield number(values, column.decimals)
        if column.ratio:
            ours = values_of(base, column.key) if base is not None else []
            yield f"{statistics.median(values) / statistics.median(ours):.2f}" if values and ours else "-"


def values_of(outcome: Outcome, key: str) -> list[float]:
    return [report[key] for report in outcome.reports if key in report]


def number(values: Sequence[float], decimals: int) -> str:
    """The median, and if there were several runs that differ, the lowest and the highest."""
    if not values:
        return "-"
    text, lowest, highest = (f"{v:,.{decimals}f}" for v in (statistics.median(values), min(values), max(values)))
    return text if lowest == highest else f"{text} ({lowest}-{highest})"


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        line = [name.ljust(widths[0]), *[cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]]
        yield "  ".join(line).rstrip()


def surroundings(server: str, names: Sequence[str]) -> str:
    """Machine and versions: numbers mean nothing without them."""
    present = [installed(name) for name in ENTRIES if name in names and missing(name) is None]
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"{machine} (load {load}), {server}\n{', '.join(present)}"
