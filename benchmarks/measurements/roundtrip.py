"""How long it takes from sending a no-op to holding its result, with one idle worker in another process."""

from __future__ import annotations

import statistics
import time

from benchmarks.measurements.model import Column, Measurement, Report, Setting
from benchmarks.workers import running_worker

WARM_UP = 10
PATIENCE = 20.0
"""Seconds for a single result."""


async def measure(setting: Setting) -> Report:
    """Contenders that poll would take minutes: they get fewer tasks, at least a few of them."""
    async with running_worker(setting.contender, "no_op"):
        for number in range(WARM_UP):
            await once(setting, number)
        times: list[float] = []
        until = time.perf_counter() + setting.seconds / 3
        while len(times) < setting.tasks and (len(times) < 2 or time.perf_counter() < until):
            times.append(await once(setting, len(times)))
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"p50": cuts[49] * 1e3, "p95": cuts[94] * 1e3, "p99": cuts[98] * 1e3, "count": len(times)}


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
    ),
    sizes=(500,),
)
