"""What the workers under test run: tasks that leave a trace outside of the queue, one line for each event."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from aioretryq import TaskQueue, current_task

queue = TaskQueue()

TRACE = os.open(os.environ["FAULTS_TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
SECONDS = os.environ.get("FAULTS_SECONDS")
"""How long the tasks of this worker take, whatever they were asked for: a task hangs here and is quick there."""


def note(kind: str) -> None:
    request = current_task().request
    line = (
        f"{kind} {request.id} {os.getpid()} {time.monotonic():.4f} "
        f"{request.attempts} {request.deliveries} {request.interruptions}\n"
    )
    os.write(TRACE, line.encode())  # one short append is atomic


def seconds_here(asked: float) -> float:
    return asked if SECONDS is None else float(SECONDS)


@queue.task
async def work(seconds: float) -> int:
    note("start")
    try:
        await asyncio.sleep(seconds_here(seconds))
    except asyncio.CancelledError:
        note("cancelled")
        raise
    note("end")
    return os.getpid()


@queue.task
def work_in_thread(seconds: float) -> int:
    note("start")
    time.sleep(seconds_here(seconds))
    note("end")
    return os.getpid()


@queue.task
async def block(seconds: float) -> int:
    """What nobody should write: it holds the event loop."""
    note("start")
    time.sleep(seconds)
    note("end")
    return os.getpid()


@queue.task
async def kill_worker(after: float) -> None:
    note("start")
    await asyncio.sleep(after)
    os.kill(os.getpid(), signal.SIGKILL)


@queue.task(max_retries=3, default_retry_delay=0)
async def fail_twice() -> int:
    note("start")
    if current_task().request.attempts <= 2:
        note("retry")
        raise current_task().retry(countdown=0.05)
    note("end")
    return os.getpid()


@queue.task(ignore_result=True)
async def touch() -> None:
    """The least that leaves a trace: for very many."""
    note("end")
