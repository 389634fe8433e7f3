"""Workers on every broker, each with a connection of its own."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aioretryq import TaskQueue, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

GOLDEN = Path(__file__).parent.parent / "golden"
NODE = "w1@lab"


def golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return found


class Lab:
    """A client, and workers as programs would be: none shares its connections."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = TaskQueue(url)
        self._stack = AsyncExitStack()

    async def worker(
        self, name: str = NODE, define: Callable[[TaskQueue], None] | None = None, **options: Any
    ) -> Worker:
        queue = TaskQueue(self.url, **options.pop("conf", {}))
        (define or define_tasks)(queue)
        return await self._stack.enter_async_context(Worker(queue, name=name, **options).running())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Lab]:
        async with self.client, self._stack:
            yield self


def define_tasks(queue: TaskQueue) -> None:
    @queue.task(name="lab.sleep")
    async def sleep(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    @queue.task(name="lab.add", max_retries=5)
    async def add(x: int, y: int) -> int:
        return x + y


async def running(lab: Lab, task_id: str) -> None:
    """Until a worker has begun with that task."""
    async with asyncio.timeout(20):
        while not any((await lab.client.control.inspect().query_task(task_id)).values()):
            await asyncio.sleep(0.001)
