"""Tasks that leave a trace outside of the queue: one line in a file for each run that came to its end."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from aioretryq import TaskQueue

queue = TaskQueue()
TRACE = Path(os.environ.get("COUNTING_TRACE", "trace"))


def leave_trace(number: int) -> None:
    with TRACE.open("a") as file:  # one short append is atomic
        file.write(f"{number}\n")


@queue.task
async def work(number: int, seconds: float) -> int:
    await asyncio.sleep(seconds)
    leave_trace(number)
    return number


@queue.task
def work_in_thread(number: int, seconds: float) -> int:
    time.sleep(seconds)
    leave_trace(number)
    return number
