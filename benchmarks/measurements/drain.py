"""How fast one worker process empties a queue that was filled before it started, and with how much memory."""

from __future__ import annotations

import asyncio
import functools
import json
from pathlib import Path

from benchmarks import place
from benchmarks.measurements.enqueue import enqueue_many
from benchmarks.measurements.model import Column, Measurement, Report, Setting
from benchmarks.workers import running_worker

LOOK = 0.02
"""Seconds between looks at the tally. Its times were taken by the worker."""


async def measure(setting: Setting, *, task: str) -> Report:
    tally = Path(place.TALLY)
    await enqueue_many(setting.client, task, setting.tasks)
    async with running_worker(setting.contender, task) as worker, asyncio.timeout(setting.seconds):
        while not tally.exists():
            worker.check()
            await asyncio.sleep(LOOK)
    counted = json.loads(tally.read_text())
    return {"rate": setting.tasks / counted["seconds"], "memory": counted["memory"], "again": counted["again"]}


COLUMNS = (
    Column("rate", "tasks/s", ratio=True),
    Column("memory", "peak MB", decimals=1, ratio=True),
    Column("again", "ran twice"),
)

NO_OP = Measurement(
    "Drain: {tasks:,} no-ops, one worker process, {concurrency} at once",
    functools.partial(measure, task="no_op"),
    COLUMNS,
    sizes=(5000,),
)

IO = Measurement(
    "I/O drain: {tasks:,} tasks that wait 50 ms, one worker process, {concurrency} at once",
    functools.partial(measure, task="io"),
    COLUMNS,
    sizes=(4000,),
)
