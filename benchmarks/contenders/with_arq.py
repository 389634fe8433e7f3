"""arq on Redis, with uvloop. It polls: queue and results every 5 ms here, not every 0.5 s as by default."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import uvloop
from arq import create_pool
from arq.connections import RedisSettings

from benchmarks import place, tasks
from benchmarks.contenders.adapter import Adapter

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
REDIS: Any = RedisSettings.from_dsn(place.URL)
REDIS.max_connections = 10_000
QUIET = {"version": 1, "disable_existing_loggers": False}
POLL = 0.005


async def no_op(_context: Any, number: int) -> int:
    return await tasks.no_op(number)


async def io(_context: Any, number: int) -> int:
    return await tasks.io(number)


async def echo(_context: Any, number: int, text: str) -> str:
    return await tasks.echo(number, text)


class WorkerSettings:
    functions: ClassVar = [no_op, io, echo]
    redis_settings: ClassVar = REDIS
    max_jobs: ClassVar = place.CONCURRENCY
    poll_delay: ClassVar = 0.5 if place.PATIENT else POLL


class Arq(Adapter):
    pool: Any

    async def open(self) -> None:
        self.pool = await create_pool(REDIS)

    async def close(self) -> None:
        await self.pool.aclose()

    async def send(self, task: str, number: int, *more: Any, delay: float | None = None) -> Any:
        return await self.pool.enqueue_job(task, number, *more, _defer_by=delay)

    async def wait(self, handle: Any, timeout: float) -> Any:
        return await handle.result(timeout, poll_delay=POLL)


ADAPTER = Arq()
