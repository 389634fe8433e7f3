"""For `aioretryq worker control_application:queue`."""

from __future__ import annotations

import asyncio
import os
import time

from aioretryq import TaskQueue

queue = TaskQueue(os.environ.get("CONTROL_URL", "memory://"))


@queue.task(name="lab.sleep")
async def sleep(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


@queue.task(name="lab.add", max_retries=5)
async def add(x: int, y: int) -> int:
    return x + y


@queue.task(name="lab.plain")
def plain(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@queue.inspect_command(args=[("n", int)], signature="[N]")
def square(state, n: int = 2):
    """The square of a number."""
    return {"node": state.hostname, "square": n * n}


@queue.control_command(variadic="words")
async def shout(state, words=()):
    return {"ok": " ".join(words).upper()}
