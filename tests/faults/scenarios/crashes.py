"""Workers that die between two steps of a settlement."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import redis

from faults.accounting import Figure, Report
from faults.scenarios.network import redis_of
from redis_server import RedisServer

if TYPE_CHECKING:
    from faults.arena import Arena


async def before_acknowledgement(arena: Arena) -> Report:
    """The results are stored, and then the worker dies before the broker has heard of it: nothing runs again."""
    place, count = redis_of(arena), min(20, arena.scale.tasks)
    backend = RedisServer()
    backend.start()
    try:
        there = {"AIORETRYQ_RESULT_BACKEND": backend.url}
        (victim,) = await arena.start(1, "-c", str(count), **there)
        ids = set(await arena.publish(count, "work", 0.5))
        await arena.started(count)
        place.server.freeze()
        await arena.ended(count)
        await arena.hear(
            victim, "is gone"
        )  # the broker is; results come first, so the first of them are where they belong
        victim.kill()
        stored = stored_in(backend)
        place.server.thaw()
        killed = time.monotonic()
        arena.suspects.append((victim.pid, ids - stored))
        await arena.start(1, "-c", "20", **there)
        await arena.publish(arena.scale.tasks - count, "work", 0.02)
        report = await arena.finish()
        report.figures["settled after"] = Figure(time.monotonic() - killed, None)
        report.figures["results stored, acknowledgement missing"] = Figure(len(stored), None, "")
        if again := sum(arena.trace.starts[task_id] > 1 for task_id in stored):
            report.wrong.append(f"{again} tasks ran again although their results were stored")
        if not stored:
            report.wrong.append("no result was stored before the worker died: nothing was shown")
        return report
    finally:
        backend.close()


def stored_in(backend: RedisServer) -> set[str]:
    prefix = "celery-task-meta-"
    with redis.Redis.from_url(backend.url) as client:
        return {key.decode().removeprefix(prefix) for key in client.keys(f"{prefix}*")}


async def killed_with_a_claim(arena: Arena) -> Report:
    """A worker stands still while messages come, perhaps in the middle of taking some; then it is killed."""
    (victim,) = await arena.start(1, "-c", "20")
    await arena.publish(1, "work", 0.0)
    await arena.ended(1)
    victim.freeze()
    await arena.publish(arena.scale.tasks - 1, "work", 0.02)
    await arena.kill(victim)
    await arena.start(1, "-c", "20")
    return await arena.finish()
