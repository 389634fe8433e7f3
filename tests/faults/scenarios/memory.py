"""A full queue must not fill the memory of those who serve it."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from aioretryq.message import Outgoing, TaskMessage
from aioretryq.protocol.task import encode_task
from faults.accounting import Figure, Report
from faults.arena import TASK
from faults.scenarios.killed import still_alive

if TYPE_CHECKING:
    from faults.arena import Arena

BATCH = 1000
GROWTH = 15.0
"""MB between a tenth and the end of the work."""


async def full_queue(arena: Arena) -> Report:
    """Very many messages wait, and one worker works them off."""
    count = arena.scale.queued
    await fill(arena, count)
    (worker,) = await arena.start(1, "-c", "100", "-l", "warning")
    await arena.need(lambda: len(arena.trace.read().ends) >= count // 10, "a tenth done")
    before = peak = worker.memory()
    begun, done = time.monotonic(), len(arena.trace.ends)
    while len(arena.trace.read().ends) < count:
        peak = max(peak, worker.memory())
        reached = len(arena.trace.ends)
        if not await arena.until(lambda reached=reached: len(arena.trace.read().ends) >= min(count, reached + 100)):
            break
    rate = (len(arena.trace.ends) - done) / (time.monotonic() - begun)
    report = await arena.finish()
    report.figures["worker memory at a tenth"] = Figure(before, None, "MB")
    report.figures["worker memory at most"] = Figure(peak, before + GROWTH, "MB")
    report.figures["tasks a second"] = Figure(round(rate), None, "")
    report.wrong += still_alive([worker])
    return report


async def fill(arena: Arena, count: int) -> None:
    """Straight into the broker: as many senders would have done."""
    for start in range(0, count, BATCH):
        ids = [str(uuid.uuid4()) for _ in range(min(BATCH, count - start))]
        made = [(TaskMessage(id=task_id, task=f"{TASK}touch"), str(uuid.uuid4())) for task_id in ids]
        outgoing = [Outgoing("celery", encode_task(message, tag=tag), tag) for message, tag in made]
        await arena.insist(lambda outgoing=outgoing: arena.queue.broker.send(outgoing))
        arena.published += ids
