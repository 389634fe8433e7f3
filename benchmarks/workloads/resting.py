"""What it costs to be there: idle workers, starting, importing, asking."""

from __future__ import annotations

import resource
import statistics
import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks.contenders import CONTENDERS, OURS, Work
from benchmarks.processes import RunFailed, resident, scheduled_seconds
from benchmarks.workloads.sending import STARTING

if TYPE_CHECKING:
    from benchmarks.stage import Stage
    from benchmarks.workloads.model import Report

LONG = 10.0
"""Seconds of idleness that are measured."""
CALMING = 1.5
"""Seconds from the last task until then."""
TRIES = 5


def idle(stage: Stage, tasks: int) -> Report:
    """`tasks` are executed before, so that everything there is has been set up."""
    stage.prepare(tasks, patient=True)
    with stage.working(Work("no_op", 1, stage.concurrency)) as workers:
        stage.ask("warm", timeout=STARTING)
        stage.ask("seed", task="no_op", count=tasks)
        stage.until(workers, tasks)
        stage.dismiss()
        time.sleep(CALMING)
        pids = workers.pids()
        cpu = scheduled_seconds(pids)
        with stage.server.monitored() as seen:
            time.sleep(LONG)
        used = scheduled_seconds(pids) - cpu
        workers.check()
        inside = seen.count("lua")
        report = {
            "cpu": used,
            "commands": (len(seen) - inside) / LONG,
            "inside": inside / LONG,
            "memory": resident(pids),
            "connections": stage.server.connections(),
        }
    stage.prove()
    return report


def start(stage: Stage, tasks: int) -> Report:
    """From starting the program to the start of the first of some tasks that wait."""
    stage.prepare(tasks)
    stage.ask("seed", task="no_op", count=tasks)
    with stage.working(Work("no_op", 1, stage.concurrency)) as workers:
        stage.until(workers, tasks)
        began = min(program.started for program in workers.programs)
        cpu = scheduled_seconds(workers.pids())
    stage.prove()
    return {"seconds": stage.ledger.began() - began, "cpu": cpu}


IMPORTS = {
    OURS: "from aioretryq import TaskQueue",
    "celery-threads": "from celery import Celery",
    "arq": "from arq import create_pool",
    "saq": "from saq import Queue",
    "streaq": "from streaq import Worker",
    "taskiq": "from taskiq_redis import RedisStreamBroker",
    "dramatiq": "from dramatiq.brokers.redis import RedisBroker",
    "huey": "from huey import RedisHuey",
    "rq": "from rq import Queue",
}
TIMED = "from time import perf_counter, process_time; wall, cpu = perf_counter(), process_time(); {}; "
PRINT = "print(perf_counter() - wall, process_time() - cpu)"


def imports(stage: Stage, tasks: int) -> Report:
    """What an application needs to define its tasks, in a new interpreter."""
    stage.prepare(0)
    command = stage.command(["python", "-c", TIMED.format(IMPORTS[stage.contender.name]) + PRINT])
    found = [
        [float(each) for each in run(stage, command).split()] for _ in range(tasks + 1)
    ]  # the first one compiles
    wall, cpu = (statistics.median(each) * 1e3 for each in zip(*found[1:], strict=True))
    return {"wall": wall, "cpu": cpu}


HELP = {OURS: ["aioretryq", "--help"], "celery-threads": ["celery", "--help"]}
PING = {
    OURS: ["aioretryq", "inspect", "ping", "--url", "{url}"],
    "celery-threads": ["celery", "-A", "benchmarks.contenders.with_celery", "inspect", "ping"],
}


def cli(stage: Stage, tasks: int) -> Report:
    """Wall and CPU time of `--help`, and of `inspect ping` while one worker is idle."""
    stage.prepare(0)
    name = stage.contender.name
    asked = HELP.get(name) or [CONTENDERS[name].commands(Work())[0][0], "--help"]
    report = lasting(stage, "help", asked, tasks)
    if name in PING:
        with stage.working(Work("no_op", 1, stage.concurrency)):
            stage.ask("warm", timeout=STARTING)
            report.update(lasting(stage, "ping", PING[name], tasks))
    return report


def lasting(stage: Stage, what: str, words: list[str], tries: int) -> Report:
    wall, cpu = [], []
    for _ in range(tries + 1):
        began, used = time.perf_counter(), children_cpu()
        run(stage, stage.command(words))
        wall.append(time.perf_counter() - began)
        cpu.append(children_cpu() - used)
    return {what: statistics.median(wall[1:]), f"{what}_cpu": statistics.median(cpu[1:])}


def children_cpu() -> float:
    """Processor time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(stage: Stage, command: list[str]) -> str:
    done = subprocess.run(command, env=stage.environment(), capture_output=True, text=True, timeout=stage.seconds)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RunFailed(f"{command[0]} exited with {done.returncode}: {said[-1] if said else ''}"[:200])
    return done.stdout
