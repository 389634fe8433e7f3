"""A queue for the tests of `aioretryq workflow`."""

import asyncio

from aioretryq import TaskQueue

queue = TaskQueue(task_track_started=True)


@queue.task(name="w.add")
async def add(x: int, y: int = 0) -> int:
    return x + y


@queue.task(name="w.total")
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@queue.task(name="w.fail")
async def fail(*args: object) -> None:
    raise ValueError("broken")


@queue.task(name="w.wait")
async def wait(value: int) -> int:
    """Until it is told to go on: `queue.results` is the only way out that both processes know."""
    while not await queue.results.restore_group("go-on"):
        await asyncio.sleep(0.02)
    return value
