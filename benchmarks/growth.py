"""How aioretryq's figures change with the size of things: `python -m benchmarks.growth`, `... plot`.

Measures ours alone, one run of each size in each round, and writes `results/growth.json`; `plot` draws a picture of
each series from that file (with matplotlib, of the extra `bench`).
"""

from __future__ import annotations

import importlib
import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.contenders import CONTENDERS, OURS, Work
from benchmarks.environments import FOLDER, ROOT, Environments
from benchmarks.processes import resident
from benchmarks.results import LATEST
from benchmarks.server import Database, database
from benchmarks.stage import Stage
from benchmarks.workloads import drain, sending

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.workloads.model import Report

RESULTS = LATEST.with_name("growth.json")
PICTURES = ROOT / "docs" / "images"
DRAINED = 20_000
AT_MOST = 30_000
SENT_BYTES = 100_000_000
"""What the tasks of a payload series carry together, at most."""


def processes(stage: Stage, number: int) -> Report:
    return drain.drain(stage, DRAINED, processes=number)


def queued(stage: Stage, number: int) -> Report:
    """The rate over the first tasks of so long a queue, once the worker is warm."""
    stage.prepare(number)
    stage.ask("seed", task="no_op", count=number, keep=False)
    part = min(number, AT_MOST)
    with stage.working(Work("no_op", 1, stage.concurrency)) as workers:
        spent = stage.drained(workers, part, after=part // 5)
        memory = resident(workers.pids())
    stage.prove(upto=part)
    return {"rate": spent.rate, "memory": memory, **spent.each()}


def concurrent(stage: Stage, number: int) -> Report:
    """Tasks of 50 ms: four times as many as run at once."""
    return drain.io(stage, max(400, number * 4), at_once=number)


def waiting(stage: Stage, number: int) -> Report:
    report = sending.waiters(stage, number)
    return {**report, "rate": number / report["seconds"]}


def payload(stage: Stage, number: int) -> Report:
    tasks = min(2_000, SENT_BYTES // number)
    return drain.payload(stage, tasks, size=number)


@dataclass(frozen=True)
class Series:
    measure: Callable[[Stage, int], Report]
    sizes: tuple[int, ...]
    title: str
    axis: str
    figures: tuple[tuple[str, str], ...]


RATE = ("rate", "tasks/s")
COST = ("worker_us", "worker CPU us/task")
MEMORY = ("memory", "worker MB")
SERIES = {
    "processes": Series(processes, (1, 2, 4), "Drain no-ops", "worker processes", (RATE, COST)),
    "queued": Series(
        queued, (1_000, 10_000, 100_000, 1_000_000), "Drain no-ops", "tasks queued", (RATE, COST, MEMORY)
    ),
    "concurrent": Series(
        concurrent, (10, 100, 1_000, 10_000), "Drain tasks of 50 ms", "at once", (RATE, COST, MEMORY)
    ),
    "waiting": Series(
        waiting,
        (1, 10, 100, 1_000),
        "Results awaited at once, then a worker starts",
        "waiting clients in one process",
        (("seconds", "seconds until all have theirs"), ("connections", "connections")),
    ),
    "payload": Series(
        payload, (100, 1_000, 10_000, 100_000, 1_000_000), "Drain echoes", "bytes in and out", (RATE, COST, MEMORY)
    ),
}


def run(series: Series, size: int, server: Database, bin: Path) -> Report:
    server.empty()
    with (
        tempfile.TemporaryDirectory(prefix="aioretryq-bench-", ignore_cleanup_errors=True) as folder,
        Stage(CONTENDERS[OURS], bin, server, Path(folder), 300.0) as stage,
    ):
        return series.measure(stage, size)


@click.group(invoke_without_command=True)
@click.option("--only", type=click.Choice([*SERIES]), multiple=True, help="Series.  [default: all]")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Rounds; kept: medians.")
@click.option("--largest", type=click.IntRange(1), help="Leave out sizes above that.")
@click.option("--json", "path", type=click.Path(path_type=Path), default=RESULTS, help="Where results go.")
@click.pass_context
def main(context: click.Context, only: tuple[str, ...], repeat: int, largest: int | None, path: Path) -> None:
    """Measure how aioretryq grows."""
    if context.invoked_subcommand is not None:
        return
    bin = Environments(FOLDER).bin(CONTENDERS[OURS])
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    with database(None) as server:
        for name in only or SERIES:
            sizes = [size for size in SERIES[name].sizes if largest is None or size <= largest]
            rounds = [{size: run(SERIES[name], size, server, bin) for size in sizes} for _ in range(repeat)]
            found[name] = {str(size): medians([each[size] for each in rounds]) for size in sizes}
            for size in sizes:
                shown = ", ".join(
                    f"{title} {found[name][str(size)][key]:,.1f}" for key, title in SERIES[name].figures
                )
                click.echo(f"{name} {size:>9,}: {shown}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def medians(reports: list[Report]) -> Report:
    return {key: statistics.median(report[key] for report in reports) for key in reports[0]}


@main.command()
@click.option("--from", "path", type=click.Path(path_type=Path, exists=True), default=RESULTS)
@click.option("--to", "folder", type=click.Path(path_type=Path), default=PICTURES, help="Folder of the pictures.")
def plot(path: Path, folder: Path) -> None:
    """Draw growth-*.png from the results."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in json.loads(path.read_text()).items():
        draw(pyplot, SERIES[name], {int(size): report for size, report in found.items()})
        pyplot.savefig(folder / f"growth-{name}.png", dpi=110)
        pyplot.close()
        click.echo(folder / f"growth-{name}.png")


def draw(pyplot: Any, series: Series, found: dict[int, Report]) -> None:
    """One diagram for each figure, side by side; each from zero, so that nothing looks steeper than it is."""
    shape = {"figsize": (4.2 * len(series.figures), 3.2), "layout": "constrained", "squeeze": False}
    figure, [axes] = pyplot.subplots(1, len(series.figures), **shape)
    figure.suptitle(series.title)
    for axis, (key, title) in zip(axes, series.figures, strict=True):
        axis.plot(list(found), [report[key] for report in found.values()], marker="o")
        axis.set_xscale("log", base=2 if max(found) < 10 else 10)
        axis.set_xticks(list(found), [f"{size:,}" for size in found], minor=False)
        axis.set_ylim(bottom=0)
        axis.set_xlabel(series.axis)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)


if __name__ == "__main__":
    main()
