"""How long it takes from sending a no-op to holding its result, with one idle worker in another process."""

from __future__ import annotations

import statistics
import time

from benchmarks.measurements.model import Column, Measurement, Report, Setting
from benchmarks.workers import running_worker

WARM_UP = 10
PATIENCE = 5.0
"""Seconds for a single result; after that the wait is lost, which is not the same as slow."""

STARTING = 20.0
"""Seconds for the first result: the worker starts meanwhile."""


async def measure(setting: Setting) -> Report:
    """Contenders that poll would take minutes: they get fewer tasks, at least a few of them."""
    async with running_worker(setting.contender, "no_op"):
        for number in range(WARM_UP):
            # Their values are not looked at: SAQ's worker may abort what it finds when it starts.
            await setting.client.result(await setting.client.enqueue("no_op", number), STARTING)
        times: list[float] = []
        lost = 0
        until = time.perf_counter() + setting.seconds / 3
        while len(times) < setting.tasks and (len(times) < 2 or time.perf_counter() < until):
            try:
                times.append(await once(setting, len(times)))
            except TimeoutError:
                lost += 1
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"p50": cuts[49] * 1e3, "p95": cuts[94] * 1e3, "p99": cuts[98] * 1e3, "count": len(times), "lost": lost}


async def once(setting: Setting, number: int) -> float:
    started = time.perf_counter()
    handle = await setting.client.enqueue("no_op", number)
    value = await setting.client.result(handle, PATIENCE)
    taken = time.perf_counter() - started
    if value != number:
        raise RuntimeError(f"the result is {value!r}, not {number!r}")
    return taken


ROUND_TRIP = Measurement(
    "Round trip: send a no-op and wait for its result, one after the other, idle server",
    measure,
    (
        Column("p50", "p50 ms", decimals=2, ratio=True),
        Column("p95", "p95 ms", decimals=2, ratio=True),
        Column("p99", "p99 ms", decimals=2),
        Column("count", "results"),
        Column("lost", "lost"),
    ),
    sizes=(500,),
)
