"""How aioretryq's figures change with the size of things: `python -m benchmarks.growth`, or `make growth`.

Writes `results/growth.json`, of which `python -m benchmarks.plots` draws the pictures in docs/images. A peer or two
run beside it where that is cheap. A run in which a task did not run, or ran twice, has no figure; if it was ours, the
command exits with 1.
"""

from __future__ import annotations

import json
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import results
from benchmarks.contenders import CONTENDERS, OURS, Work
from benchmarks.environments import FOLDER, Environments, NotInstalled
from benchmarks.processes import RunFailed, resident, scheduled_seconds
from benchmarks.server import Database, database
from benchmarks.stage import SETTLING, Stage, Workers
from benchmarks.workloads import drain, sending

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.workloads.model import Report

RESULTS = results.LATEST.with_name("growth.json")
FILES = 10_000
WARM = 2_000
"""Tasks before the counted ones: a worker that has just started is another subject."""
MARGIN = 20_000
"""Of a long queue so many are watched beyond those that are counted: looking at a million takes time of its own."""
FEWEST = 500
"""Tasks that have to fall into a measurement of processor time, which begins and ends a little late."""


def size_for(stage: Stage, ours: int, peer: int) -> int:
    """A peer takes as long for fewer tasks."""
    return ours if stage.contender.name == OURS else peer


def processes(stage: Stage, number: int) -> Report:
    """From the moment when all of them run tasks, until there are no more."""
    tasks = size_for(stage, 20_000 + 10_000 * number, 2_000 + 1_000 * number)
    stage.prepare(tasks)
    stage.ask("seed", task="no_op", count=tasks, keep=False)
    with stage.working(Work("no_op", number, stage.concurrency)) as workers:
        stage.until(workers, tasks // 3)
        report = costs(stage, workers, tasks)
    stage.prove()
    began = sorted(page.head[0] for page in stage.ledger.pages() if page.head[0])
    if len(began) < number:
        raise RunFailed(f"only {len(began)} of {number} processes ran tasks")
    rest = sum(start >= began[-1] for start in stage.ledger.starts())
    if rest < tasks // 10:
        raise RunFailed(f"only {rest:,} of {tasks:,} tasks were left when the last process began")
    return {"rate": rest / (stage.ledger.ended() - began[-1]), **report}


def queued(stage: Stage, number: int) -> Report:
    """The rate over the first tasks of so long a queue, once the worker is warm."""
    everything = WARM + number
    part = WARM + min(number, size_for(stage, 30_000, 3_000))
    stage.prepare(min(everything, part + MARGIN))
    seconds = stage.ask("seed", task="no_op", count=everything, keep=False)
    held = stage.server.memory()
    with stage.working(Work("no_op", 1, stage.concurrency)) as workers:
        stage.until(workers, WARM)
        report = costs(stage, workers, part)
        memory = resident(workers.pids())
    stage.prove(upto=part)
    starts = sorted(start for start in stage.ledger.starts() if start)
    rate = (part - WARM - 1) / (starts[part - 1] - starts[WARM])
    return {"rate": rate, "memory": memory, "redis_memory": held, "sent": everything / seconds, **report}


def costs(stage: Stage, workers: Workers, upto: int) -> Report:
    """Processor time for each task from now on until so many have run. Empty if that is too short to be told.

    `cores`: how much of the machine the workers got. Where that is less than one each, somebody else had the rest.
    """
    pids = workers.pids()
    began, ran, cpu, redis = time.monotonic(), stage.ledger.ran(), scheduled_seconds(pids), stage.counters()
    stage.until(workers, upto)
    seconds = time.monotonic() - began
    time.sleep(SETTLING)
    now = stage.counters()
    tasks, spent = stage.ledger.ran() - ran, scheduled_seconds(pids) - cpu
    if tasks < FEWEST or not redis:
        return {}
    return {
        "worker_us": spent / tasks * 1e6,
        "cores": spent / seconds,
        "redis_us": (now["cpu"] - redis["cpu"]) / tasks * 1e6,
        "commands": (now["commands"] - redis["commands"]) / tasks,
    }


def concurrent(stage: Stage, number: int) -> Report:
    """Tasks of 50 ms: twenty times as many as run at once would take a second, were there no cost."""
    most = size_for(stage, 40_000, 2_000)
    return drain.io(stage, min(most, max(400, number * 20)), at_once=number)


def payload(stage: Stage, number: int) -> Report:
    tasks = min(size_for(stage, 4_000, 500), max(50, 50_000_000 // number))
    report = drain.payload(stage, tasks, size=number)
    return {**report, "megabytes": report["rate"] * number * 2 / 1e6}


def waiting(stage: Stage, number: int) -> Report:
    """So many at once send a task and wait for its result, again and again, in one process, by one client."""
    return round_trips(stage, number, own=False)


def clients(stage: Stage, number: int) -> Report:
    """The same with a client for each, with connections of its own; still one process."""
    return round_trips(stage, number, own=True)


def round_trips(stage: Stage, number: int, *, own: bool) -> Report:
    tasks = min(size_for(stage, 20_000, 1_000), max(300, number * 20))
    stage.prepare(tasks)
    with stage.working(Work("no_op", 1, stage.concurrency)) as workers:
        for _ in range(10):
            stage.ask("warm", timeout=sending.STARTING)
        found: Report = stage.ask("round_trips", waiting=number, count=tasks, own=own, timeout=60)
        stage.prove()
        workers.check()
        everybody = stage.server.connections()
        stage.dismiss()
        time.sleep(SETTLING)  # in which the server notices
        return {**found, "connections": everybody - stage.server.connections()}


@dataclass(frozen=True)
class Series:
    measure: Callable[[Stage, int], Report]
    sizes: tuple[int, ...]
    peers: tuple[tuple[str, int], ...] = ()
    """Each with the largest size at which it is measured."""


SERIES = {
    "processes": Series(processes, (1, 2, 4), (("saq", 4), ("dramatiq-gevent", 4))),
    "queued": Series(queued, (1_000, 10_000, 100_000, 1_000_000), (("saq", 10_000),)),
    "concurrent": Series(concurrent, (10, 100, 1_000, 10_000), (("saq", 1_000),)),
    "waiting": Series(waiting, (1, 10, 100, 1_000, 10_000)),
    "clients": Series(clients, (1, 10, 100, 1_000)),
    "payload": Series(payload, (100, 1_000, 10_000, 100_000, 1_000_000), (("saq", 100_000),)),
}


@dataclass
class Growth:
    """The runs of one series: contender -> size -> what each round found; and why some have none."""

    runs: dict[str, dict[int, list[Report]]]
    failures: dict[str, str]

    def as_json(self, around: dict[str, Any]) -> dict[str, Any]:
        medians = {who: {size: middle(rounds) for size, rounds in each.items()} for who, each in self.runs.items()}
        return {"around": around, "medians": medians, "runs": self.runs, "failures": self.failures}


def middle(rounds: list[Report]) -> Report:
    keys = [key for key in rounds[0] if all(key in each for each in rounds)]
    return {key: statistics.median(each[key] for each in rounds) for key in keys}


def measure(name: str, rounds: int, largest: int | None, seconds: float, server: Database, peers: bool) -> Growth:
    series, growth, environments = SERIES[name], Growth({}, {}), Environments(FOLDER)
    for round_ in range(rounds):
        others = series.peers if peers and not round_ else ()  # once: they are there for scale
        for who, most in [(OURS, max(series.sizes)), *others]:
            for size in series.sizes:
                if size > min(most, largest or most) or who in growth.failures:
                    continue
                try:
                    report = run(series, who, size, seconds, server, environments)
                except (RunFailed, NotInstalled, OSError, subprocess.SubprocessError) as error:
                    growth.failures[who] = f"{size:,}: {error}"
                    growth.runs.get(who, {}).pop(size, None)
                    click.echo(f"{name} {who} {size:,}: no figure: {error}", err=True)
                    continue
                growth.runs.setdefault(who, {}).setdefault(size, []).append(report)
                said = ", ".join(f"{key} {value:,.1f}" for key, value in report.items())
                click.echo(f"{name} {round_ + 1}/{rounds} {who} {size:,}: {said}")
    return growth


def run(series: Series, who: str, size: int, seconds: float, server: Database, environments: Environments) -> Report:
    contender = CONTENDERS[who]
    bin = environments.bin(contender)
    server.empty()
    with (
        tempfile.TemporaryDirectory(prefix="aioretryq-bench-", ignore_cleanup_errors=True) as folder,
        Stage(contender, bin, server, Path(folder), seconds) as stage,
    ):
        return series.measure(stage, size)


def allow_files() -> None:
    """A thousand clients in one process have 3,000 connections; usual is a limit of 1,024 that one may raise."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, wanted), most))


@click.command()
@click.option("--only", type=click.Choice([*SERIES]), multiple=True, help="Series.  [default: all]")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Rounds; drawn: medians.")
@click.option("--largest", type=click.IntRange(1), help="Leave out sizes above that.")
@click.option("--seconds", type=click.FloatRange(1), default=120.0, show_default=True, help="Longest step of a run.")
@click.option("--peers/--no-peers", default=True, show_default=True, help="A peer or two, for one round.")
@click.option("--redis", metavar="URL", help="An empty database; it is emptied often.  [default: a private server]")
@click.option("--json", "path", type=click.Path(path_type=Path), default=RESULTS, help="Where results go.")
def main(only: tuple[str, ...], redis: str | None, path: Path, **options: Any) -> None:
    """Measure how aioretryq grows. Series that are not measured stay in the file as they were."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    allow_files()
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    rounds, failed = options.pop("repeat"), False
    with database(redis) as server:
        for name in only or SERIES:
            around = results.surroundings(server.version)
            growth = measure(name, rounds, server=server, **options)
            failed = failed or OURS in growth.failures
            found[name] = growth.as_json(around)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
