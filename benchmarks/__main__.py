"""`python -m benchmarks WORKLOAD...`."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from benchmarks import results, table
from benchmarks.contenders import CONTENDERS
from benchmarks.environments import FOLDER, Environments, NotInstalled
from benchmarks.processes import RunFailed
from benchmarks.server import Database, database
from benchmarks.stage import Stage
from benchmarks.verdicts import MINE, TASKS, TOOK, Outcome
from benchmarks.workloads import WORKLOADS


@dataclass(frozen=True)
class Plan:
    """What the command line asks for."""

    only: frozenset[str] | None
    tasks: int | None
    repeat: int
    seconds: float
    quick: bool
    at_once: int | None


LONG, FEWEST = 40.0, 1000
"""Seconds of a peer's first run, start and proof included, and tasks of the runs after it."""


@click.command()
@click.argument("workloads", nargs=-1, required=True, type=click.Choice([*WORKLOADS, "all"]))
@click.option("--only", help=f"Contenders, with commas, of {', '.join(CONTENDERS)}.")
@click.option("--tasks", type=click.IntRange(1), help="Number of tasks.  [default: each workload's own]")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Rounds; shown: medians.")
@click.option("--quick", is_flag=True, help="A tenth of the tasks: to try something, not to quote.")
@click.option("--at-once", type=click.IntRange(1), help="Concurrency of workers.  [default: best for each]")
@click.option("--seconds", type=click.FloatRange(1), default=300.0, show_default=True, help="Longest step of a run.")
@click.option("--redis", metavar="URL", help="An empty database; it is emptied often.  [default: a private server]")
@click.option("--environments", type=click.Path(path_type=Path), default=FOLDER, help="Where peers are installed.")
@click.option(
    "--json",
    "path",
    type=click.Path(path_type=Path),
    help="Where results go.  [default: results/latest.json, of whole runs only]",
)
@click.option("--allow-missing", is_flag=True, help="Succeed without contenders that cannot be installed.")
def main(
    workloads: tuple[str, ...],
    only: str | None,
    redis: str | None,
    environments: Path,
    path: Path | None,
    allow_missing: bool,
    **options: Any,
) -> None:
    """Compare aioretryq with other task queues.

    Exits with 1 if a run of aioretryq failed, or if a peer could not be installed.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    plan = Plan(named(only), **options)
    names = list(WORKLOADS) if "all" in workloads else list(dict.fromkeys(workloads))
    installed = Environments(environments)
    measured = []
    with database(redis) as server:
        for name in names:
            measured.append(measure(name, plan, server, installed))
            click.echo(f"\n{measured[-1].title}\n{table.details(WORKLOADS[name], measured[-1].outcomes)}")
            whole = plan.only is None and plan.tasks is None and plan.at_once is None and not plan.quick
            if path is not None or whole:
                results.save(path or results.LATEST, measured)
    click.echo(f"\n{results.described(measured[-1].around)}\n\n{results.final(measured)}")
    sys.exit(complaints(measured, allow_missing))


def named(only: str | None) -> frozenset[str] | None:
    if only is None:
        return None
    wanted = frozenset(name.strip() for name in only.split(","))
    for name in sorted(wanted - CONTENDERS.keys()):
        raise click.UsageError(f"There is no contender {name!r}; there are {', '.join(CONTENDERS)}.")
    return wanted


def measure(name: str, plan: Plan, server: Database, environments: Environments) -> results.Measured:
    """Rounds, not contenders, are repeated: noise then meets everybody. A slow peer has fewer tasks in the next one,
    where that does not change its figures."""
    workload = WORKLOADS[name]
    tasks = plan.tasks or (max(1, workload.tasks // 10) if plan.quick else workload.tasks)
    rounds = plan.repeat if workload.repeat else 1
    around = results.surroundings(server.version)
    outcomes = {who: Outcome() for who in workload.contenders if plan.only is None or who in plan.only}
    for round_ in range(rounds):
        for who, outcome in outcomes.items():
            if outcome.failure is None:
                click.echo(f"{name} {round_ + 1}/{rounds} {who}", err=True)
                shrinks = workload.shrinks and plan.tasks is None and who not in MINE
                most = min(tasks, workload.of_peers or tasks) if shrinks else tasks
                attempt(name, who, fewer(most, outcome) if shrinks else tasks, outcome, plan, server, environments)
    return results.Measured(name, tasks, rounds, outcomes, around)


def fewer(tasks: int, outcome: Outcome) -> int:
    """So many that the next run does not take long."""
    if not outcome.reports or (took := outcome.reports[0][TOOK]) < LONG:
        return tasks
    return max(min(tasks, FEWEST), round(tasks * LONG / 2 / took))


def attempt(
    name: str, who: str, tasks: int, outcome: Outcome, plan: Plan, server: Database, environments: Environments
) -> None:
    """Add one run to the outcome."""
    contender = CONTENDERS[who]
    if plan.at_once is not None:
        contender = replace(contender, at_once=plan.at_once)
    if (excuse := contender.excuse(name)) is not None:
        outcome.failure = excuse
        return
    try:
        bin = environments.bin(contender)
    except NotInstalled as error:
        outcome.failure, outcome.missing = str(error), True
        return
    server.empty()
    with tempfile.TemporaryDirectory(prefix="aioretryq-bench-", ignore_cleanup_errors=True) as folder:
        try:
            with Stage(contender, bin, server, Path(folder), plan.seconds) as stage:
                began = time.monotonic()
                report = dict(WORKLOADS[name].run(stage, tasks))
            outcome.reports.append({**report, TASKS: tasks, TOOK: time.monotonic() - began})
        except (RunFailed, OSError, subprocess.SubprocessError) as error:
            outcome.failure = str(error)
            click.echo(f"  no figure: {error}", err=True)


def complaints(measured: list[results.Measured], allow_missing: bool) -> int:
    """Say what went wrong; the exit code."""
    wrong = 0
    for each in measured:
        for who, outcome in each.outcomes.items():
            if outcome.failure and (who in MINE or (outcome.missing and not allow_missing)):
                click.echo(f"{each.name}: {who} has no figure: {outcome.failure}", err=True)
                wrong = 1
    return wrong


if __name__ == "__main__":
    main()
