"""streaQ on Redis; its log line for every task is off, as nobody else writes one here."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from streaq import Worker

from benchmarks import place, tasks
from benchmarks.contenders import Contender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

worker: Any = Worker(redis_url=place.URL, concurrency=place.CONCURRENCY)
TASKS = {"no_op": worker.task(silent=True)(tasks.no_op), "io": worker.task(silent=True)(tasks.io)}


class StreaqClient:
    async def enqueue(self, task: str, number: int) -> Any:
        return await TASKS[task].enqueue(number)

    async def result(self, handle: Any, timeout: float) -> Any:
        return (await handle.result(int(timeout))).result


@asynccontextmanager
async def client() -> AsyncIterator[StreaqClient]:
    async with worker:
        yield StreaqClient()


def worker_command(_task: str) -> list[str]:
    return [sys.executable, "-m", "streaq", "run", f"{__name__}:worker"]


CONTENDER = Contender(client, worker_command)
