"""Workers that die, are stopped, or freeze."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

from faults.accounting import Figure, Report

if TYPE_CHECKING:
    from faults.arena import Arena
    from faults.workers import WorkerProcess

HANG = {"FAULTS_SECONDS": "3600"}
QUICK = {"FAULTS_SECONDS": "0"}

DELIVERIES = 3
"""Default of `task_max_deliveries`."""


async def sigkill(arena: Arena) -> Report:
    """A worker is killed with 100 tasks in flight, and the queue is idle but for those."""
    (victim,) = await arena.start(1, "-c", "100", **HANG)
    stranded = set(await arena.publish(min(100, arena.scale.tasks), "work", 0.05))
    await arena.started(len(stranded))
    (other,) = await arena.start(1, "-c", "100")
    await arena.publish(arena.scale.tasks - len(stranded), "work", 0.01)
    await arena.ended(arena.scale.tasks - len(stranded))
    await arena.kill(victim)
    report = await arena.finish()
    assert victim.killed_at is not None
    last = max((event.time for event in arena.trace.of("end") if event.task_id in stranded), default=0.0)
    report.figures["in flight done again after"] = Figure(last - victim.killed_at, arena.scale.lease + 2)
    report.wrong += still_alive([other])
    return report


async def sigkill_alone(arena: Arena) -> Report:
    """The only worker is killed, and another one is started: there may have been nobody to sweep for a while."""
    (victim,) = await arena.start(1, "-c", "100", **HANG)
    await arena.publish(min(100, arena.scale.tasks), "work", 0.05)
    await arena.started(len(arena.published))
    await arena.kill(victim)
    await asyncio.sleep(0.7 * arena.scale.lease)  # as long as it takes to start elsewhere
    await arena.start(1, "-c", "100")
    report = await arena.finish()
    assert victim.killed_at is not None
    last = max((event.time for event in arena.trace.of("end")), default=0.0)
    report.figures["in flight done again after"] = Figure(last - victim.killed_at, 2 * arena.scale.lease + 2)
    return report


async def sigkill_busy(arena: Arena) -> Report:
    """One of two workers is killed in the middle of a full queue, three times."""
    await arena.start(2, "-c", "20")
    publishing = asyncio.create_task(arena.publish(arena.scale.tasks, "work", 0.05))
    for part in (1, 2, 3):
        await arena.ended(arena.scale.tasks * part // 5)
        await arena.kill(arena.fleet.alive[0])
        await arena.start(1, "-c", "20")
    await publishing
    report = await arena.finish()
    report.wrong += still_alive(arena.fleet.members[3:])
    return report


async def sigterm(arena: Arena) -> Report:
    """A worker full of tasks of 20 s is told to stop, with a grace that is too short for them."""
    grace, slots = arena.scale.grace, min(20, arena.scale.tasks)
    (worker,) = await arena.start(1, "-c", str(slots), "--grace", f"{grace:g}")
    published = await arena.publish(arena.scale.tasks, "work", 20.0)
    await arena.started(slots)
    begun = [event.task_id for event in arena.trace.of("start")]
    told = time.monotonic()
    worker.term()
    code = await arena.end_of(worker)
    gone = time.monotonic() - told
    contents = arena.place.look()
    (successor,) = await arena.start(1, "-c", "1", **QUICK)
    report = await arena.finish()
    report.figures["exit after"] = Figure(gone, grace + 1)
    if len(contents.waiting) != len(published) or contents.held or contents.parked:
        report.wrong.append(f"after the exit {len(contents.waiting)} wait and {len(contents.held)} are held")
    if contents.waiting[:slots] != begun:
        report.wrong.append("what was cancelled is not at the head of the queue, in the order in which it was begun")
    again = [event for event in arena.trace.of("start") if event.pid == successor.pid]
    report.wrong += [
        f"attempt {event.attempts}, delivery {event.deliveries}, {event.interruptions} interruptions: {event.task_id}"
        for event in again
        if (event.attempts, event.deliveries, event.interruptions) != (1, 1, int(event.task_id in begun))
    ][:3]
    if code != 0:
        report.wrong.append(f"exit code {code}")
    return report


async def deploys(arena: Arena) -> Report:
    """Stops in a row while one long task runs: they cost no attempt and no delivery."""
    (long,) = await arena.publish(1, "work", 20.0)
    for count in range(1, arena.scale.deploys + 1):
        (worker,) = await arena.start(1, "--grace", "0")
        await arena.need(lambda count=count: arena.trace.read().starts[long] >= count, "the task begun again")
        worker.term()
        await arena.end_of(worker)
    await arena.start(1, **QUICK)
    report = await arena.finish()
    last = arena.trace.of("start")[-1]
    if (last.attempts, last.deliveries, last.interruptions) != (1, 1, arena.scale.deploys):
        report.wrong.append(
            f"attempts {last.attempts}, deliveries {last.deliveries}, interruptions {last.interruptions}; "
            f"it was interrupted {arena.scale.deploys} times and never raised"
        )
    return report


async def poison(arena: Arena) -> Report:
    """A task kills its worker; whatever looks after workers starts another one each time."""
    await arena.start(2, "-c", "20")
    (killer,) = await arena.publish(1, "kill_worker", 0.3)
    await arena.publish(arena.scale.tasks, "work", 0.02)
    deaths = await funerals(arena, 1)
    report = await arena.finish()
    return judged(report, arena, {killer}, deaths, beside=0)


async def poison_among_others(arena: Arena) -> Report:
    """The same, but it kills at once: what runs beside it dies with it each time, and is as suspect as it is."""
    killers = set(await arena.publish(1, "kill_worker", 0.0))
    await arena.publish(arena.scale.tasks, "work", 0.02)
    await arena.start(1, "-c", "20")
    deaths = await funerals(arena, 1)
    report = await arena.finish()
    return judged(report, arena, killers, deaths, beside=None)


async def funerals(arena: Arena, killers: int) -> int:
    """Start a worker for each that dies, until all the killers are dead letters; how many died."""
    deaths, give_up = 0, time.monotonic() + arena.patience + 3 * DELIVERIES * arena.scale.lease
    while time.monotonic() < give_up and deaths < 4 * DELIVERIES * killers:
        dead = [worker for worker in arena.fleet.members if not worker.alive]
        for worker in dead[deaths:]:
            # It was killed a moment ago; none of what it held can have been given to another one yet.
            arena.excuse(worker)
            if worker.exit_code != -signal.SIGKILL:
                raise AssertionError(f"a worker ended by itself:\n{worker.output[-3000:]}")
            await arena.start(1, "-c", "20")
        if len(dead) == deaths and len(await arena.dead_letters()) >= killers:
            break
        deaths = len(dead)
        await arena.until(
            lambda deaths=deaths: len(arena.fleet.alive) < len(arena.fleet.members) - deaths, timeout=0.2
        )
    return deaths


def judged(report: Report, arena: Arena, killers: set[str], deaths: int, *, beside: float | None) -> Report:
    report.figures["workers that died"] = Figure(deaths, DELIVERIES * len(killers), "")
    if report.accounting.dead < len(killers):
        report.wrong.append("a task that kills its worker is no dead letter")
    report.figures["dead letters beside it"] = Figure(report.accounting.dead - len(killers), beside, "")
    ended = killers & set(arena.trace.read().ends)
    if ended:
        report.wrong.append("a task that kills its worker came to its end")
    return report


async def frozen_worker(arena: Arena) -> Report:
    """Two workers stand still for longer than their leases, and another one does their tasks; then they go on: the
    tasks of the one have just come to their end, those of the other are in the middle."""
    (at_the_end,) = await arena.start(1, "-c", "10", FAULTS_SECONDS=str(arena.scale.lease))
    (in_the_middle,) = await arena.start(1, "-c", "10", **HANG)
    victims = [at_the_end, in_the_middle]
    waiting = [await arena.send("work", 0.02) for _ in range(20)]
    await arena.started(20)
    for victim in victims:
        victim.freeze()
    stopped = time.monotonic()
    for victim in victims:
        arena.excuse(victim)
    (other,) = await arena.start(1, "-c", "20")
    await arena.publish(arena.scale.tasks - 20, "work", 0.02)
    ran = [await result.get(timeout=arena.patience) for result in waiting if result is not None]
    took = time.monotonic() - stopped
    for victim in victims:
        victim.thaw()
        await arena.hear(victim, "LEASE_LOST")
    report = await arena.finish()
    after = [await result.get(timeout=arena.patience) for result in waiting if result is not None]
    report.figures["in flight done by another after"] = Figure(took, 2 * arena.scale.lease + 2)
    if set(ran) != {other.pid}:
        report.wrong.append("a result is not that of the worker that had the lease")
    if after != ran:
        report.wrong.append("the workers that came back have changed results")
    told = {event.task_id for event in arena.trace.of("cancelled") if event.pid == in_the_middle.pid}
    if len(told) != 10:
        report.wrong.append(f"{len(told)} of 10 tasks were told that their lease was lost")
    report.wrong += still_alive([*victims, other])
    return report


def still_alive(workers: list[WorkerProcess]) -> list[str]:
    return [f"a worker has ended with {worker.exit_code}" for worker in workers if not worker.alive]
