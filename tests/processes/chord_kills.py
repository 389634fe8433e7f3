"""Tasks of chords, for workers that kill themselves (SIGKILL: nothing is tidied up) at a point of what follows.

KILL_AT is `before` or `after`, and one of the POINTS: the worker dies when that operation of its broker or result
backend is about to be done, or was just done, for the first (`:3`: the third) time that matters. As a program it is a
sender of so many parts, and the id of the body.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import redis

from aioretryq import TaskQueue
from aioretryq.backends.redis import RedisBackend
from aioretryq.brokers.redis import RedisBroker
from aioretryq.canvas import chord, signature
from aioretryq.workflows import dispatch
from aioretryq.workflows.plan import Plan

RUNS = "runs"
PARTS = 4
"""Of the header."""
MANY = 1100
"""Of one that is sent in batches of 500: a generator of less is no stream."""


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit("killed")


def define(queue: TaskQueue, url: str) -> None:
    server = redis.Redis.from_url(url)

    def ran(what: str) -> None:
        server.hincrby(RUNS, what, 1)

    @queue.task(name="k.part")
    async def part(number):
        ran(f"part {number}")
        return number

    @queue.task(name="k.early", acks_late=False)
    async def early(number):
        ran(f"part {number}")
        return number

    @queue.task(name="k.broken")
    async def broken(number):
        ran(f"part {number}")
        raise ValueError("broken")

    @queue.task(name="k.body")
    async def body(values):
        ran("body")
        return values

    @queue.task(name="k.told")
    async def told(task_id):
        ran("told")


def sends(batch: Any, answer: Any) -> bool:
    return any(finish.send for finish in batch)


def anything(batch: Any, answer: Any) -> bool:
    return bool(batch)


def counts(batch: Any, answer: Any) -> bool:
    """Parts, none of which is the last one; they may be counted in the step that acknowledges."""
    return any(getattr(each, "parts", ()) for each in batch) and (answer is None or any(answer))


def stores(batch: Any, answer: Any) -> bool:
    return any(each.result is not None for each in batch) and (answer is None or any(answer))


def completes(batch: Any, answer: Any) -> bool:
    """The part that was run last, by a worker that runs one at a time."""
    return redis.Redis.from_url(url).hlen(RUNS) == PARTS if answer is None else any(answer)


POINTS: dict[str, list[tuple[type, str, Callable[[Any, Any], bool]]]] = {
    "claim": [(RedisBroker, "claim", lambda batch, answer: bool(answer.deliveries))],
    "store": [(RedisBackend, "store", anything), (RedisBroker, "finish", stores)],
    "count": [
        (RedisBackend, "count_parts", lambda batch, answer: not any(answer or ())),
        (RedisBroker, "finish", counts),
    ],
    "count of the last": [(RedisBackend, "count_parts", completes)],
    "hold": [(RedisBackend, "hold_chords", anything)],
    "finish": [(RedisBroker, "finish", anything)],
    "finish with the body": [(RedisBroker, "finish", sends)],
    "close": [(RedisBackend, "close_chords", anything)],
    "open": [(RedisBackend, "open_chords", anything)],
    "amend": [(RedisBackend, "amend_chords", anything)],
    "send": [(RedisBroker, "send", anything)],
}


APART = ("hold", "close")
"""What is a step of its own only where broker and result backend are in two places."""


def arm(when: str, point: str, number: int) -> None:
    """Die at the `number`th time."""
    numbers = itertools.count(1)
    for owner, name, matters in POINTS[point]:
        setattr(owner, name, deadly(getattr(owner, name), when, matters, lambda: next(numbers) == number))


def deadly(real: Any, when: str, matters: Any, is_time: Callable[[], bool]) -> Any:
    async def dying(self: Any, *args: Any, **kwargs: Any) -> Any:
        if when == "before":
            if matters(args[0], None) and is_time():
                die()
            return await real(self, *args, **kwargs)
        answer = await real(self, *args, **kwargs)
        if matters(args[0], answer) and is_time():
            die()
        return answer

    return dying


url = os.environ.get("AIORETRYQ_URL", "redis://localhost")
queue = TaskQueue(url)
define(queue, url)
if armed := os.environ.get("KILL_AT"):
    moment, _, rest = armed.partition(" ")
    where, _, count = rest.partition(":")
    if where in APART:
        RedisBroker.joins = lambda self, backend: False
    arm(moment, where, int(count or 1))


async def send(size: int, task_id: str) -> None:
    dispatch.SENDING = 1.0  # seconds, after which it counts as dead
    Plan.steps = functools.partialmethod(Plan.steps, 500)
    async with queue:
        header = (signature("k.part", (number,), app=queue) for number in range(size))
        await chord(header, signature("k.body", task_id=task_id, app=queue)).apply_async(timeout=0.5, retry=False)


if __name__ == "__main__":
    asyncio.run(send(int(sys.argv[1]), sys.argv[2]))
