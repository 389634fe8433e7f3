"""Our half of the tests of remote control."""

from __future__ import annotations

import asyncio
import os

from aioretryq import TaskQueue

queue = TaskQueue(os.environ["INTEROP_REDIS"])


@queue.task(name="both.sleep")
async def sleep(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


@queue.task(name="ours.add", max_retries=7)
async def add(x: int, y: int) -> int:
    return x + y


@queue.inspect_command(args=[("n", int)])
def our_square(state, n: int = 2):
    return {"square": n * n}
