"""A chord of very many parts beside as many plain tasks: what being counted costs each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contenders import Work
from benchmarks.processes import resident

if TYPE_CHECKING:
    from benchmarks.stage import Spent, Stage
    from benchmarks.workloads.model import Report

FEWER = 10
"""The memory of client and worker is compared with that for a chord of so many times fewer parts."""
WARM = 10
"""The first so many-th of the tasks are not counted."""


def chord(stage: Stage, tasks: int) -> Report:
    """A small chord, plain tasks, the chord: each by a client and a worker of its own."""
    few = max(WARM, tasks // FEWER)
    bodies = 2 * tasks + few
    stage.prepare(bodies + 2)
    small, _ = _chord(stage, few, first=2 * tasks, ran=0, body=bodies)
    stage.ask("seed", task="no_op", count=tasks, keep=False)
    plain = _drained(stage, tasks, ran=few + 1)
    stage.dismiss()
    large, spent = _chord(stage, tasks, first=tasks, ran=few + 1 + tasks, body=bodies + 1)
    stage.prove()
    part, no_op = spent.each(), plain.each()
    return {
        **part,
        "rate": spent.rate,
        "overhead": part["worker_us"] / no_op["worker_us"],
        "slower": plain.rate / spent.rate,
        "plain_us": no_op["worker_us"],
        "plain_redis_us": no_op["redis_us"],
        "sent": tasks / large["took"],
        "memory": large["memory"],
        "growth": large["memory"] / small["memory"],
        "with_body": large["peak"],
        "client": large["client"],
        "client_growth": large["client"] / small["client"],
    }


def _chord(stage: Stage, parts: int, *, first: int, ran: int, body: int) -> tuple[Report, Spent]:
    """Memory is that of the worker when nine tenths of the header have run; its peak comes with the body."""
    took = stage.ask("chord", count=parts, first=first, body=body)
    with stage.working(Work("no_op", 1, stage.concurrency)) as workers:
        spent = stage.drained(workers, ran + parts * 9 // 10, after=ran + parts // WARM)
        memory = resident(workers.pids())
        stage.ask("verify_chord", count=parts, timeout=stage.seconds)
        peak = resident(workers.pids(), "VmHWM")
    client = stage.client_memory()
    stage.dismiss()
    return {"took": took, "memory": memory, "peak": peak, "client": client}, spent


def _drained(stage: Stage, tasks: int, *, ran: int) -> Spent:
    with stage.working(Work("no_op", 1, stage.concurrency)) as workers:
        spent = stage.drained(workers, ran + tasks * 9 // 10, after=ran + tasks // WARM)
        stage.until(workers, ran + tasks)
    return spent
