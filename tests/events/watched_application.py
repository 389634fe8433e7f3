"""What the worker of the command's tests runs."""

from __future__ import annotations

from aioretryq import TaskQueue

queue = TaskQueue(task_send_sent_event=True)
in_memory = TaskQueue("memory://watched")


@queue.task(name="watched.add")
async def add(x: int, y: int) -> int:
    return x + y


async def send() -> str:
    """Returns when it is done."""
    async with queue:
        result = await add.delay(1, 2)
        await result.get(timeout=20)
        return result.id
