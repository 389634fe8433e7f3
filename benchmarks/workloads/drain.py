"""How fast workers empty a queue that was filled before they started, and what that costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contenders import Work
from benchmarks.processes import resident

if TYPE_CHECKING:
    from benchmarks.stage import Stage
    from benchmarks.workloads.model import Report

SAMPLE = 1000
"""Results that are fetched afterwards, evenly chosen: they have to be there."""
AT_ONCE = 500
SIZE = 100_000


def drain(stage: Stage, tasks: int, processes: int = 1) -> Report:
    stage.prepare(tasks)
    stage.ask("seed", task="no_op", count=tasks)
    return emptied(stage, tasks, Work("no_op", processes, stage.concurrency))


def drain_two(stage: Stage, tasks: int) -> Report:
    return drain(stage, tasks, processes=2)


def io(stage: Stage, tasks: int, at_once: int = AT_ONCE) -> Report:
    stage.prepare(tasks, concurrency=at_once)
    stage.ask("seed", task="io", count=tasks)
    return emptied(stage, tasks, Work("io", 1, at_once))


def emptied(stage: Stage, tasks: int, work: Work) -> Report:
    with stage.working(work) as workers:
        spent = stage.drained(workers, tasks)
        memory = resident(workers.pids(), "VmHWM")
        stage.ask("verify", sample=SAMPLE, timeout=10)
    stage.prove()
    return {"rate": stage.rate(tasks), "memory": memory, **spent.each()}


def payload(stage: Stage, tasks: int, size: int = SIZE) -> Report:
    """Memory is that of the worker when a fifth is done, and when all is."""
    stage.prepare(tasks, concurrency=min(stage.contender.at_once, 16))
    stage.ask("payload", count=tasks, size=size)
    with stage.working(Work("echo", 1, stage.concurrency)) as workers:
        stage.until(workers, tasks // 5)
        early = resident(workers.pids())
        spent = stage.drained(workers, tasks)
        late = resident(workers.pids())
        stage.ask("verify_payload", sample=50, size=size, timeout=10)
    stage.prove()
    return {"rate": stage.rate(tasks), "memory": late, "growth": late / early, **spent.each()}


SHALLOW = 20_000
WARM = 4_000
SLICE = 30_000


def deep(stage: Stage, tasks: int) -> Report:
    """A slice of a very long queue, against the same with a short one: each by a new worker, once it is warm."""
    stage.prepare(tasks + SHALLOW)
    work = Work("no_op", 1, stage.concurrency)
    stage.ask("seed", task="no_op", count=SHALLOW, first=tasks, keep=False)
    with stage.working(work) as workers:
        shallow = stage.drained(workers, SHALLOW, after=WARM)
        small = resident(workers.pids())
    seconds = stage.ask("seed", task="no_op", count=tasks, keep=False)
    part = min(SLICE, tasks)
    with stage.working(work) as workers:
        deep = stage.drained(workers, SHALLOW + part, after=SHALLOW + WARM)
        large = resident(workers.pids())
    stage.prove(upto=SHALLOW + part)
    return {
        "rate": deep.rate,
        "shallow": shallow.rate,
        "kept": deep.rate / shallow.rate,
        "cost": deep.each()["worker_us"] / shallow.each()["worker_us"],
        "memory": large,
        "growth": large / small,
        "seeding": tasks / seconds,
        "redis_memory": stage.server.memory(),
        **deep.each(),
    }
