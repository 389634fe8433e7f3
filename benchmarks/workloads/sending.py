"""How fast a process sends tasks, and how soon it holds their results."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.contenders import Work
from benchmarks.processes import RunFailed

if TYPE_CHECKING:
    from benchmarks.stage import Stage
    from benchmarks.workloads.model import Report

STARTING = 20.0
"""Seconds for the first result of a worker that starts."""
PATIENCE = 5.0
"""Seconds for a single result; after that the wait is lost, which is not the same as slow."""
AHEAD = 2.0
PACE = 1000
"""Delayed tasks sent a second: the same for all, so that lateness is not a matter of who sends how fast."""
EARLY = 0.05


def enqueue(stage: Stage, tasks: int) -> Report:
    """One after the other, by the contender's way for many, plainly at once. Afterwards a worker runs them all."""
    many, at_once = tasks * 5, tasks * 2
    everything = tasks + many + at_once
    stage.prepare(everything)
    took = stage.ask("one_by_one", count=tasks, first=0)
    took_many = stage.ask("seed", task="no_op", count=many, first=tasks)
    took_at_once = stage.ask("at_once", count=at_once, first=tasks + many)
    with stage.working(Work("no_op", 1, stage.concurrency)) as workers:
        stage.until(workers, everything)
    stage.prove()
    rates = {"many": many / took_many, "at_once": at_once / took_at_once}
    return {"one_by_one": tasks / took, **rates, "best": max(rates.values())}


def gather(stage: Stage, tasks: int) -> Report:
    stage.prepare(tasks)
    with stage.working(Work("no_op", 1, stage.concurrency)):
        stage.ask("warm", timeout=STARTING)
        seconds = stage.ask("gather", count=tasks, timeout=60)
    stage.prove()
    return {"seconds": seconds}


def roundtrip(stage: Stage, tasks: int) -> Report:
    """Contenders that poll would take minutes: they get fewer tasks, at least a few of them."""
    stage.prepare(tasks)
    with stage.working(Work("no_op", 1, stage.concurrency)):
        for _ in range(10):
            stage.ask("warm", timeout=STARTING)
        found = stage.ask("roundtrip", count=tasks, seconds=stage.seconds / 10, patience=PATIENCE)
    times = found["times"]
    if len(times) < 2 or found["lost"]:
        raise RunFailed(f"{found['lost']} results did not come within {PATIENCE:.0f} s")
    stage.prove(upto=len(times))
    p50, p99 = quantiles(times)
    return {"p50": p50 * 1e3, "p99": p99 * 1e3, "spread": p99 / p50, "count": len(times), "lost": found["lost"]}


def delayed(stage: Stage, tasks: int) -> Report:
    """Each task is due 2 s after its own sending; late is by how much later it starts."""
    stage.prepare(tasks)
    with stage.working(Work("no_op", 1, stage.concurrency, delayed=True)) as workers:
        stage.ask("warm", timeout=STARTING)
        due = stage.ask("delayed", count=tasks, delay=AHEAD, pace=PACE)
        stage.until(workers, tasks)
    stage.prove()
    late = [at - wanted for at, wanted in zip(stage.ledger.starts(), due, strict=True)]
    early = sum(each < -EARLY for each in late)
    if early > tasks / 100:
        raise RunFailed(f"{early:,} of {tasks:,} tasks started more than {EARLY * 1000:.0f} ms too early")
    p50, p99 = quantiles(late)
    sending = (due[-1] - due[0]) / (tasks - 1)
    return {"p50": p50 * 1e3, "p99": p99 * 1e3, "sent": 1 / sending, "early": early}


def waiters(stage: Stage, tasks: int) -> Report:
    """Many results awaited by one process; then a worker starts."""
    stage.prepare(tasks)
    stage.ask("seed", task="no_op", count=tasks)
    stage.tell("await_all", timeout=stage.seconds / 2)
    time.sleep(1.0)  # in which they all begin to wait
    connections = stage.server.connections() if stage.contender.broker == "redis" else 0
    began = time.monotonic()
    with stage.working(Work("no_op", 1, stage.concurrency)):
        found = stage.answer("await_all")
    if found["done"] < tasks:
        raise RunFailed(f"{tasks - found['done']:,} of {tasks:,} waits were in vain")
    stage.prove()
    return {"connections": connections, "seconds": found["ended"] - began}


def quantiles(values: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]
