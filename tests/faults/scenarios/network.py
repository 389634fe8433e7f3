"""Redis dies, freezes, or the network between does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faults.accounting import Figure, Report
from faults.places import RedisPlace
from faults.scenarios.killed import still_alive

if TYPE_CHECKING:
    from faults.arena import Arena, Scale

RESUMES = 2.0
RESUMES_HALF_OPEN = 15.0
"""Seconds until dead silence must have been noticed."""
CPU = 0.1
CPU_OVER = 6.0
"""Seconds of an outage over which a worker may use `CPU` seconds."""


@dataclass(frozen=True, slots=True)
class Outage:
    """How it begins, how it ends, how long it is, and within how many seconds of its end work must go on."""

    begin: Callable[[RedisPlace], None]
    end: Callable[[RedisPlace], None]
    lasts: Callable[[Scale], float]
    resumes: float = RESUMES


OUTAGES = {
    "killed": Outage(lambda p: p.server.kill(), lambda p: p.server.start(), lambda s: s.killed),
    "frozen": Outage(lambda p: p.server.freeze(), lambda p: p.server.thaw(), lambda s: s.frozen),
    "cut": Outage(lambda p: p.network.cut(), lambda p: p.network.heal(), lambda s: s.cut),
    "half-open": Outage(
        lambda p: p.network.black_hole(), lambda p: p.network.heal(), lambda s: s.half_open, RESUMES_HALF_OPEN
    ),
}


def redis_of(arena: Arena) -> RedisPlace:
    assert isinstance(arena.place, RedisPlace), "there is no network to an SQLite file"
    return arena.place


async def outage(arena: Arena, kind: str) -> Report:
    """Under load, with work in flight and a sender that goes on sending."""
    fault, place = OUTAGES[kind], redis_of(arena)
    workers = await arena.start(2, "-c", "10")
    tasks, lasts = arena.scale.tasks, fault.lasts(arena.scale)
    await arena.publish(tasks * 2 // 3, "work", 0.2)
    await arena.ended(tasks // 10)
    fault.begin(place)
    sending = asyncio.create_task(trickle(arena, tasks - len(arena.published), lasts))
    watched = min(lasts, CPU_OVER)
    # What was in flight when it began may still end; then there is nothing to do but to wait.
    await asyncio.sleep(lasts - watched)
    before = [worker.cpu() for worker in workers]
    await asyncio.sleep(watched)
    spent = max(worker.cpu() - used for worker, used in zip(workers, before, strict=True))
    await asyncio.to_thread(fault.end, place)
    healed = time.monotonic()
    await sending
    report = await arena.finish()
    fresh = [event.time for event in arena.trace.of("start") if event.time > healed]
    report.figures["work goes on after"] = Figure(min(fresh, default=healed) - healed, fault.resumes)
    report.figures[f"worker CPU in {watched:g} s of it"] = Figure(spent, CPU if watched == CPU_OVER else None)
    report.figures["errors at the sender"] = Figure(len(arena.refused), 0, "")
    report.wrong += still_alive(workers)
    return report


async def late_riser(arena: Arena) -> Report:
    """Redis stands still for two leases, and one of the workers, alive, is the last to notice that it is back."""
    place, slots = redis_of(arena), 10
    late, early = await arena.start(2, "-c", str(slots))
    frozen = 2 * arena.scale.lease
    await arena.publish(2 * slots, "work", frozen + arena.scale.lease)
    await arena.started(2 * slots)
    place.server.freeze()
    await asyncio.sleep(frozen)
    late.freeze()
    place.server.thaw()
    await asyncio.sleep(arena.scale.lease / 2)
    late.thaw()
    await arena.publish(arena.scale.tasks - 2 * slots, "work", 0.02)
    report = await arena.finish()
    report.wrong += still_alive([late, early])
    return report


async def trickle(arena: Arena, count: int, over: float) -> None:
    """Send one after the other, evenly over so many seconds; nobody waits for the one before."""
    sends = []
    for _ in range(count):
        sends.append(asyncio.create_task(arena.send("work", 0.02)))
        await asyncio.sleep(over / count)
    await asyncio.gather(*sends)


async def waiters(arena: Arena, kind: str) -> Report:
    """Many wait for results that are ready while the server, or the network, is away."""
    fault, place = OUTAGES[kind], redis_of(arena)
    count, lasts = arena.scale.waiters, fault.lasts(arena.scale)
    await arena.start(1, "-c", str(count))
    sent = [await arena.send("work", lasts / 2) for _ in range(count)]
    arrived: list[float] = []

    async def wait(result: Any) -> int:
        value: int = await result.get(timeout=lasts + arena.patience)
        arrived.append(time.monotonic())
        return value

    getting = [asyncio.create_task(wait(result)) for result in sent]
    await arena.started(count)
    fault.begin(place)
    await asyncio.sleep(lasts)
    await asyncio.to_thread(fault.end, place)
    healed = time.monotonic()
    got = await asyncio.gather(*getting, return_exceptions=True)
    report = await arena.finish()
    report.figures["last result after"] = Figure(max(arrived, default=healed) - healed, fault.resumes)
    report.figures["results"] = Figure(sum(isinstance(value, int) for value in got), None, f"of {count}")
    report.wrong += [repr(value) for value in got if isinstance(value, BaseException)][:3]
    return report
