"""What settings do to the cost of a task: `python -m benchmarks.tuning`.

A queue of no-ops is emptied by one worker process for each setting in turn, in several rounds. Shown is processor
time, which depends little on what else the machine does, and each as a multiple of the default in the same round.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks import results
from benchmarks.contenders import CONTENDERS, OURS, Commands, Work, ours
from benchmarks.environments import FOLDER, Environments
from benchmarks.growth import costs
from benchmarks.processes import RunFailed
from benchmarks.server import Database, database
from benchmarks.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.workloads.model import Report

WARM = 2_000


@dataclass(frozen=True)
class Variant:
    title: str
    settings: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    """Of the worker; the last of two counts."""
    task: str = "no_op"


def other_database(url: str) -> str:
    return f"{url.rpartition('/')[0]}/1"


DEFAULT = Variant("as it is, `-c 100 -l warning`")
VARIANTS = (
    DEFAULT,
    Variant("`-c 1`", options=("-c", "1")),
    Variant("`-c 10`", options=("-c", "10")),
    Variant("`-c 1000`", options=("-c", "1000")),
    Variant("`-l info`, into a file", options=("-l", "info")),
    Variant("`-E`: events, nobody listens", options=("-E",)),
    Variant("`task_ignore_result`", {"task_ignore_result": "true"}),
    Variant("`task_track_started`", {"task_track_started": "true"}),
    Variant("`result_extended`", {"result_extended": "true"}),
    Variant("results in another database", {"result_backend": "{other}"}),
    Variant("`task_acks_late=False`", {"task_acks_late": "false"}),
    Variant("a plain function, in threads", task="plain_no_op"),
)


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    names = {f"AIORETRYQ_{name.upper()}": value for name, value in settings.items()}
    os.environ.update(names)
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


def measure(variant: Variant, tasks: int, server: Database, bin: Path) -> Report:
    def commands(work: Work) -> Commands:
        return [[*words, *variant.options] for words in ours(work)]

    contender = replace(CONTENDERS[OURS], commands=commands)
    settings = {name: value.format(other=other_database(server.url)) for name, value in variant.settings.items()}
    server.empty()
    with (
        tempfile.TemporaryDirectory(prefix="aioretryq-bench-", ignore_cleanup_errors=True) as folder,
        environment(settings),
        Stage(contender, bin, server, Path(folder), 120.0) as stage,
    ):
        stage.prepare(WARM + tasks)
        stage.ask("seed", task=variant.task, count=WARM + tasks, keep=False)
        with stage.working(Work()) as workers:
            stage.until(workers, WARM)
            report = costs(stage, workers, WARM + tasks)
        stage.prove()
    if not report:
        raise RunFailed(f"{variant.title}: too few tasks to tell the cost")
    return report


def table(runs: Mapping[str, list[Report]]) -> str:
    base = runs[DEFAULT.title]
    lines = ["| setting | worker CPU/task | Redis CPU/task | commands/task |", "| --- | ---: | ---: | ---: |"]
    for title, rounds in runs.items():
        cells = [title]
        for key in ("worker_us", "redis_us"):
            ratio = statistics.median(each[key] / first[key] for each, first in zip(rounds, base, strict=True))
            middle = statistics.median(each[key] for each in rounds)
            cells.append(f"{middle:.0f} µs" if rounds is base else f"{ratio:.2f}x")
        cells.append(f"{statistics.median(each['commands'] for each in rounds):.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@click.option("--tasks", type=click.IntRange(3_000), default=15_000, show_default=True)
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Rounds; shown: medians.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where the figures go as well.")
def main(tasks: int, repeat: int, path: Path | None) -> None:
    """Print what settings do to the cost of a task."""
    bin = Environments(FOLDER).bin(CONTENDERS[OURS])
    runs: dict[str, list[Report]] = {each.title: [] for each in VARIANTS}
    with database(None) as server:
        around = results.surroundings(server.version)
        try:
            for _ in range(repeat):
                for variant in VARIANTS:
                    runs[variant.title].append(measure(variant, tasks, server, bin))
        except RunFailed as error:
            click.echo(f"No figures: {error}", err=True)
            sys.exit(1)
    click.echo(f"{results.described(around)}\n\n{table(runs)}")
    if path is not None:
        path.write_text(json.dumps({"around": around, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
