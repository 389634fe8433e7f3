"""Work that takes longer than a lease, or waits longer; and many of what should be one."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from faults.accounting import Accounting, Figure, Report
from faults.scenarios.killed import still_alive

if TYPE_CHECKING:
    from faults.arena import Arena
    from faults.workers import WorkerProcess

PARKED_FOR = 3600
MEMORY_GROWTH = 15.0
"""MB that a worker may grow by: caches, threads and pools, but nothing for each message."""


async def long_tasks(arena: Arena) -> Report:
    """Tasks of more than two leases, coroutines and functions in threads, with idle workers beside them."""
    workers = await arena.start(2, "-c", "20")
    for task in ("work", "work", "work_in_thread", "work_in_thread"):
        await arena.send(task, 2.4 * arena.scale.lease)
    await arena.publish(arena.scale.tasks - 4, "work", 0.02)
    report = await arena.finish()
    report.wrong += still_alive(workers)
    return report


async def countdowns(arena: Arena) -> Report:
    """Tasks that wait for longer than two leases until they are due."""
    delay = 2.4 * arena.scale.lease
    await arena.start(2, "-c", "10")
    sent = time.monotonic()
    count = min(arena.scale.countdowns, arena.scale.tasks)
    waiting = set(await arena.publish(count, "work", 0.01, countdown=delay))
    await arena.publish(arena.scale.tasks - count, "work", 0.02)
    report = await arena.finish()
    begun = [event.time - sent for event in arena.trace.of("start") if event.task_id in waiting]
    report.figures["latest start after it was due"] = Figure(max(begun, default=0) - delay, 2)
    if min(begun, default=delay) < delay - 0.1:
        report.wrong.append(f"one began {delay - min(begun):.2f} s too early")
    return report


async def same_id(arena: Arena) -> Report:
    """One id sent 20 times: each is a message of its own, and runs once."""
    times, task_id = 20, str(uuid.uuid4())
    await arena.start(2, "-c", "10")
    for _ in range(times):
        await arena.send("work", 0.02, task_id=task_id)
    await arena.until(lambda: arena.trace.read().ends[task_id] >= times)
    await arena.until(lambda: not arena.place.look().all)
    runs, left = arena.trace.read().ends[task_id], len(arena.place.look().all)
    counted = Accounting(
        published=times,
        executed=min(runs, times),
        queued=left,
        dead=0,
        lost=max(0, times - runs - left),
        stuck=left,
        duplicated=max(0, runs - times),
    )
    return Report(counted, {"runs": Figure(runs, times, "")})


async def parked(arena: Arena) -> Report:
    """Thousands of messages that are due in an hour, and others that are due now."""
    (worker,) = await arena.start(1, "-c", "20", "-l", "warning")
    await arena.publish(arena.scale.tasks // 2, "work", 0.0)
    await arena.ended(arena.scale.tasks // 2)
    before = worker.memory()
    left = await arena.publish(arena.scale.parked, "work", 0.0, countdown=PARKED_FOR)
    await arena.publish(arena.scale.tasks // 2, "work", 0.0)
    await arena.need(lambda: len(arena.place.look().parked) == len(left), "all parked")
    report = await arena.finish(left=left)
    report.figures["worker memory before"] = Figure(before, None, "MB")
    report.figures["worker memory with all parked"] = Figure(worker.memory(), before + MEMORY_GROWTH, "MB")
    report.wrong += still_alive([worker])
    return report


async def blocked_loop(arena: Arena) -> Report:
    """A task holds the event loop for twice the lease, with others in flight; a second worker is there."""
    (victim,) = await arena.start(1, "-c", "20")
    seconds = 2 * arena.scale.lease
    await arena.publish(10, "work", 0.5)
    await arena.send("block", seconds)
    await arena.need(lambda: len(arena.trace.read().starts) == 11, "all begun")
    (other,) = await arena.start(1, "-c", "20")
    await arena.publish(arena.scale.tasks - 11, "work", 0.02)
    report = await arena.finish()
    report.wrong += still_alive([victim, other])
    report.wrong += names_the_frame(victim)
    return report


def names_the_frame(worker: WorkerProcess) -> list[str]:
    named = any("application.py" in line and "block" in line for line in worker.lines)
    return [] if named else ["the log does not name the frame that blocked"]
