"""`python -m faults`, from the folder `tests`: the faults, each several times, as a table."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from faults.accounting import Report
from faults.arena import QUICK, Scale
from faults.catalogue import BOTH, CASES, Case, run

COLUMNS = (
    "fault",
    "on",
    "rounds",
    "published",
    "executed",
    "queued",
    "dead",
    "lost",
    "stuck",
    "twice",
    "worst figures",
)


@dataclass(slots=True)
class Row:
    """All rounds of one fault in one place."""

    case: Case
    place: str
    reports: list[Report] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def cells(self) -> list[str]:
        totals = [
            str(sum(getattr(report.accounting, name) for report in self.reports))
            for name in ("published", "executed", "queued", "dead", "lost", "stuck")
        ]
        return [self.case.title, self.place, str(len(self.reports)), *totals, self._twice(), self._figures()]

    def _twice(self) -> str:
        twice = sum(report.accounting.duplicated for report in self.reports)
        excused = sum(report.accounting.excused for report in self.reports)
        return f"{twice} (allowed)" if twice and twice == excused else str(twice)

    def _figures(self) -> str:
        """The worst of each figure over the rounds, and what was promised."""
        worst: dict[str, Any] = {}
        for report in self.reports:
            for name, figure in report.figures.items():
                if name not in worst or figure.value > worst[name].value:
                    worst[name] = figure
        return "; ".join(
            f"{name} {figure}" + (f" (<= {figure.limit:g})" if figure.limit else "") for name, figure in worst.items()
        )


async def rounds(row: Row, count: int, at_once: int, scale: Scale, logs: Path) -> None:
    room = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with room:
            begun = time.monotonic()
            told = await one_round(row, scale, logs)
            name = f"{row.case.name} on {row.place}, round {number}, {time.monotonic() - begun:.1f} s"
            click.echo(f"{name}: {'; '.join(told) or 'ok'}", err=True)

    await asyncio.gather(*(one(number) for number in range(1, count + 1)))


async def one_round(row: Row, scale: Scale, logs: Path) -> list[str]:
    """What was wrong with it."""
    try:
        report = await run(row.case, row.place, scale)
    except Exception as error:  # the other rounds and faults are still to be seen
        problems = [f"{type(error).__name__}: {error}"[:2000]]
    else:
        row.reports.append(report)
        problems = report.problems()
        if problems:
            logs.mkdir(parents=True, exist_ok=True)
            logs.joinpath(f"{row.case.name}-{row.place}.log").write_text(f"{report}\n{report.log}")
    row.failures += problems
    return problems


def table(rows: Iterable[Sequence[str]]) -> str:
    lines = [list(COLUMNS), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    drawn = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    drawn.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(drawn)


@click.command(help=f"Faults: {', '.join(CASES)}.")
@click.option("--rounds", "count", default=10, show_default=True, help="How often each fault.")
@click.option("--at-once", default=1, show_default=True, help="Rounds of a fault that run at the same time.")
@click.option("--only", help="Names of faults, with commas.")
@click.option("--on", "places", type=click.Choice(["redis", "sqlite", "both"]), default="both", show_default=True)
@click.option("--n", "tasks", type=int, help="Tasks of each round.  [default: 500]")
@click.option("--lease", type=float, help="Seconds.  [default: 5]")
@click.option("--quick", is_flag=True, help="As in `make test`: short outages, few tasks.")
@click.option(
    "--logs", default="/tmp/faults-logs", show_default=True, help="For what workers said when it went wrong."
)
def main(*, count: int, at_once: int, only: str | None, places: str, quick: bool, logs: str, **changes: Any) -> None:
    wanted = only.split(",") if only else list(CASES)
    if unknown := set(wanted) - set(CASES):
        raise click.UsageError(f"There is no fault {', '.join(sorted(unknown))}.")
    scale = replace(
        QUICK if quick else Scale(), **{name: value for name, value in changes.items() if value is not None}
    )
    chosen = BOTH if places == "both" else (places,)
    rows = [Row(CASES[name], place) for name in wanted for place in chosen if place in CASES[name].places]
    for row in rows:
        asyncio.run(rounds(row, count, at_once, scale, Path(logs)))
    click.echo(table(row.cells for row in rows))
    failures = [f"{row.case.name} on {row.place}: {text}" for row in rows for text in row.failures]
    for text in failures:
        click.echo(f"WRONG  {text}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
