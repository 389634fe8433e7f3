"""SAQ on Redis, with uvloop. `refresh` is the quickest of its ways to wait for a result."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import uvloop
from saq import Queue

from benchmarks import place, tasks
from benchmarks.contenders.adapter import Adapter

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
queue: Any = Queue.from_url(place.URL, max_concurrent_ops=100)


async def no_op(_context: Any, *, number: int) -> int:
    return await tasks.no_op(number)


async def io(_context: Any, *, number: int) -> int:
    return await tasks.io(number)


async def echo(_context: Any, *, number: int, text: str) -> str:
    return await tasks.echo(number, text)


settings = {"queue": queue, "functions": [no_op, io, echo], "concurrency": place.CONCURRENCY}


class Saq(Adapter):
    async def open(self) -> None:
        await queue.connect()
        # A worker that starts sweeps, and then aborts what it has just taken itself. Not so if another one has swept.
        await queue.sweep(lock=3600)

    async def close(self) -> None:
        await queue.disconnect()

    async def send(self, task: str, number: int, *more: Any, delay: float | None = None) -> Any:
        options: dict[str, Any] = {"text": more[0]} if more else {}
        if delay is not None:
            options["scheduled"] = time.time() + delay
        return await queue.enqueue(task, number=number, timeout=60, **options)

    async def wait(self, handle: Any, timeout: float) -> Any:
        await handle.refresh(until_complete=timeout)
        return handle.result


ADAPTER = Saq()
