"""SAQ on Redis. `refresh` is the quickest of its ways to wait for a result."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from saq import Queue

from benchmarks import place, tasks
from benchmarks.contenders import Contender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

queue = Queue.from_url(place.URL)


async def no_op(_context: Any, *, number: int) -> int:
    return await tasks.no_op(number)


async def io(_context: Any, *, number: int) -> int:
    return await tasks.io(number)


settings = {"queue": queue, "functions": [no_op, io], "concurrency": place.CONCURRENCY}


class SaqClient:
    async def enqueue(self, task: str, number: int) -> Any:
        return await queue.enqueue(task, number=number)

    async def result(self, handle: Any, timeout: float) -> Any:
        await handle.refresh(until_complete=timeout)
        return handle.result


@asynccontextmanager
async def client() -> AsyncIterator[SaqClient]:
    await queue.connect()
    yield SaqClient()
    await queue.disconnect()


def worker_command(_task: str) -> list[str]:
    return [sys.executable, "-m", "saq", f"{__name__}.settings"]


CONTENDER = Contender(client, worker_command)
