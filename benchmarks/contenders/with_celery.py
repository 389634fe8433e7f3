"""Celery: a solo worker for no-ops (its fastest for them), threads for tasks that wait."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from celery import Celery

from benchmarks import place, tasks
from benchmarks.contenders import Contender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

THREADS = 1000
"""A thread for each waiter, up to this many: `get()` blocks."""

create: Any = Celery
app = create("benchmarks", broker=place.URL, backend=place.URL)
app.conf.update(worker_concurrency=place.CONCURRENCY, broker_connection_retry_on_startup=True)
TASKS = {"no_op": app.task(tasks.plain_no_op), "io": app.task(tasks.plain_io)}


class CeleryClient:
    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    async def enqueue(self, task: str, number: int) -> Any:
        return TASKS[task].delay(number)

    async def result(self, handle: Any, timeout: float) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, handle.get, timeout)


@asynccontextmanager
async def client() -> AsyncIterator[CeleryClient]:
    threads = ThreadPoolExecutor(THREADS)
    yield CeleryClient(threads)
    threads.shutdown(wait=False, cancel_futures=True)


def worker_command(task: str) -> list[str]:
    pool = "threads" if task == "io" else "solo"
    return [sys.executable, "-m", "celery", "-A", __name__, "worker", "-P", pool, "-l", "WARNING"]


CONTENDER = Contender(client, worker_command)
