"""How fast a process sends tasks: one after the other, and many at once."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from benchmarks.measurements.model import Column, Measurement, Report, Setting

if TYPE_CHECKING:
    from benchmarks.contenders import Client

AT_ONCE = 100


async def enqueue_many(client: Client, task: str, tasks: int) -> list[Any]:
    """Send that many, AT_ONCE at a time; their handles."""
    handles: list[Any] = []
    for start in range(0, tasks, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, tasks))
        handles += await asyncio.gather(*[client.enqueue(task, number) for number in numbers])
    return handles


async def measure(setting: Setting) -> Report:
    client, tasks = setting.client, setting.tasks
    await enqueue_many(client, "no_op", AT_ONCE)
    started = time.perf_counter()
    for number in range(tasks):
        await client.enqueue("no_op", number)
    between = time.perf_counter()
    await enqueue_many(client, "no_op", tasks)
    ended = time.perf_counter()
    return {"sequential": tasks / (between - started), "gathered": tasks / (ended - between)}


ENQUEUE = Measurement(
    f"Enqueue: {{tasks:,}} no-ops, one after the other, and {AT_ONCE} at once with asyncio.gather",
    measure,
    (Column("sequential", "sequential/s", ratio=True), Column("gathered", "gathered/s", ratio=True)),
    sizes=(2000,),
)
