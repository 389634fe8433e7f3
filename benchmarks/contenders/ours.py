"""aioretryq, on any of its brokers."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aioretryq import TaskQueue
from aioretryq.worker import Worker
from benchmarks import place, tasks
from benchmarks.contenders import Contender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from aioretryq import AsyncResult

queue = TaskQueue(place.URL, worker_concurrency=place.CONCURRENCY)
TASKS = {"no_op": queue.task(tasks.no_op), "io": queue.task(tasks.io)}


class Ours:
    async def enqueue(self, task: str, number: int) -> AsyncResult[Any]:
        return await TASKS[task].delay(number)

    async def result(self, handle: AsyncResult[Any], timeout: float) -> Any:
        return await handle.get(timeout)


@asynccontextmanager
async def client() -> AsyncIterator[Ours]:
    async with queue:
        yield Ours()


def worker_command(_task: str) -> list[str]:
    return [sys.executable, "-m", "aioretryq", "worker", f"{__name__}:queue", "-l", "warning", "--grace", "1"]


def local_worker() -> AbstractAsyncContextManager[object]:
    return Worker(queue, grace=1.0).running()


CONTENDER = Contender(client, worker_command, local_worker if place.URL.startswith("memory:") else None)
