"""How many coroutines of one process may wait for results at once, and with how many connections."""

from __future__ import annotations

import asyncio
import time

from benchmarks.connections import ConnectionCounter
from benchmarks.measurements.enqueue import enqueue_many
from benchmarks.measurements.model import Column, Measurement, Report, Setting
from benchmarks.workers import running_worker

SETTLE = 1.0
"""Seconds in which they all begin to wait; only then the worker starts."""


async def measure(setting: Setting) -> Report:
    handles = await enqueue_many(setting.client, "no_op", setting.tasks)
    patience = setting.seconds * 0.6
    async with ConnectionCounter() as connections:
        waiting = [asyncio.ensure_future(setting.client.result(handle, patience)) for handle in handles]
        await asyncio.sleep(SETTLE)
        started = time.perf_counter()
        async with running_worker(setting.contender, "no_op"):
            await asyncio.wait(waiting, timeout=patience)
            ended = time.perf_counter()
    for future in waiting:
        future.cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    done = sum(outcome == number for number, outcome in enumerate(outcomes))
    report: dict[str, float] = {"done": done}
    if connections.most:
        report["connections"] = connections.most
    if done == setting.tasks:
        report["seconds"] = ended - started
    return report


WAITERS = Measurement(
    "Waiters: {tasks:,} results awaited at once by one process; then a worker starts",
    measure,
    (
        Column("done", "got theirs"),
        Column("connections", "connections", ratio=True),
        Column("seconds", "seconds", decimals=2, ratio=True),
    ),
    sizes=(100, 1000, 10_000),
    repeat=False,
)
