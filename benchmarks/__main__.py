"""`python -m benchmarks MEASUREMENT`."""

from __future__ import annotations

import click

from benchmarks.contenders import ENTRIES, OURS
from benchmarks.measurements import MEASUREMENTS
from benchmarks.runner import Outcome, Row, Runner
from benchmarks.server import Database, database
from benchmarks.table import render, surroundings

BROKERS = ("redis", "sqlite", "memory")


@click.command()
@click.argument("measurement", type=click.Choice([*MEASUREMENTS, "all"]))
@click.option("--only", help=f"Contenders, with commas.  [default: {','.join(ENTRIES)}]")
@click.option("--brokers", default=",".join(BROKERS), show_default=True, help="Brokers of aioretryq, with commas.")
@click.option("--tasks", type=click.IntRange(1), help="Number of tasks.  [default: each measurement's own]")
@click.option("--concurrency", type=click.IntRange(1), default=100, show_default=True, help="Tasks at once.")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Runs of each; shown: median.")
@click.option("--seconds", type=click.FloatRange(1), default=60.0, show_default=True, help="Longest time of a run.")
@click.option("--redis", metavar="URL", help="An empty database; it is emptied often.  [default: a private server]")
def main(measurement: str, only: str | None, brokers: str, redis: str | None, **options: int) -> None:
    """Compare aioretryq with other task queues."""
    names = listed(only, tuple(ENTRIES), "contender")
    used = listed(brokers, BROKERS, "broker")
    ours = [Row(OURS, broker) for broker in used if OURS in names]
    rows = [*ours, *[Row(name) for name in names if name != OURS]]
    with database(redis) as server:
        click.echo(surroundings(server.version, names))
        for name in MEASUREMENTS if measurement == "all" else [measurement]:
            compare(name, rows, server, **options)


def listed(text: str | None, known: tuple[str, ...], what: str) -> list[str]:
    """The names in a list with commas, in the order of the known ones."""
    wanted = [name.strip() for name in text.split(",")] if text is not None else list(known)
    for name in wanted:
        if name not in known:
            raise click.UsageError(f"There is no {what} {name!r}; there are {', '.join(known)}.")
    return [name for name in known if name in wanted]


def compare(
    name: str,
    rows: list[Row],
    server: Database,
    *,
    tasks: int | None,
    concurrency: int,
    repeat: int,
    seconds: float,
) -> None:
    """Run one measurement and print its tables. Rounds, not rows, are repeated: noise then meets everybody."""
    measurement = MEASUREMENTS[name]
    runner = Runner(server.url, concurrency, seconds)
    for size in [tasks] if tasks is not None else measurement.sizes:
        outcomes = {row: Outcome() for row in rows}
        for _ in range(repeat if measurement.repeat else 1):
            for row, outcome in outcomes.items():
                server.empty()
                runner.run(name, row, size, outcome)
        click.echo(f"\n{measurement.title.format(tasks=size, concurrency=concurrency)}")
        click.echo(render(measurement, outcomes))


if __name__ == "__main__":
    main()
