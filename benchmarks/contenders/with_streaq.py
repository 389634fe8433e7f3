"""streaQ on Redis, with uvloop; its log line for every task is off, as nobody else writes one here."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from streaq import Worker

from benchmarks import place, tasks
from benchmarks.contenders.adapter import Adapter

WAITERS = 50
"""Results awaited at once: each needs a connection and then a second one; from about 64 on they block each other."""

worker: Any = Worker(redis_url=place.URL, concurrency=place.CONCURRENCY, anyio_kwargs={"use_uvloop": True})
TASKS = {each.__name__: worker.task(silent=True)(each) for each in (tasks.no_op, tasks.io, tasks.echo)}


class Streaq(Adapter):
    bulk = True
    _waiting: asyncio.Semaphore

    async def open(self) -> None:
        self._waiting = asyncio.Semaphore(WAITERS)
        await worker.__aenter__()

    async def close(self) -> None:
        await worker.__aexit__(None, None, None)

    async def send(self, task: str, number: int, *more: Any, delay: float | None = None) -> Any:
        called = TASKS[task].enqueue(number, *more)
        return await (called.start(delay=timedelta(seconds=delay)) if delay is not None else called)

    async def send_many(self, task: str, numbers: range) -> list[Any]:
        handles = [TASKS[task].enqueue(number) for number in numbers]
        for first in range(0, len(handles), 1000):
            await worker.enqueue_many(handles[first : first + 1000])
        return handles

    async def wait(self, handle: Any, timeout: float) -> Any:
        async with self._waiting:
            return (await handle.result(timedelta(seconds=timeout))).result


ADAPTER = Streaq()
