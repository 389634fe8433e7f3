"""taskiq on Redis streams, with results in Redis."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks import place, tasks
from benchmarks.contenders import Contender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

results: Any = RedisAsyncResultBackend(place.URL)
broker: Any = RedisStreamBroker(place.URL, consumer_id="0").with_result_backend(results)
TASKS = {"no_op": broker.register_task(tasks.no_op), "io": broker.register_task(tasks.io)}


class TaskiqClient:
    async def enqueue(self, task: str, number: int) -> Any:
        return await TASKS[task].kiq(number)

    async def result(self, handle: Any, timeout: float) -> Any:
        return (await handle.wait_result(timeout=timeout)).return_value


@asynccontextmanager
async def client() -> AsyncIterator[TaskiqClient]:
    await broker.startup()
    yield TaskiqClient()
    await broker.shutdown()


def worker_command(_task: str) -> list[str]:
    limits = ["--workers", "1", "--max-async-tasks", str(place.CONCURRENCY)]
    return [sys.executable, "-m", "taskiq", "worker", f"{__name__}:broker", *limits, "--log-level", "WARNING"]


CONTENDER = Contender(client, worker_command)
