"""arq; its two log lines for every task are off, as nobody else writes any here."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from arq import create_pool
from arq.connections import RedisSettings

from benchmarks import place, tasks
from benchmarks.contenders import Contender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REDIS: Any = RedisSettings.from_dsn(place.URL) if place.URL.startswith("redis") else None
QUIET = {"version": 1, "disable_existing_loggers": False}


async def no_op(_context: Any, number: int) -> int:
    return await tasks.no_op(number)


async def io(_context: Any, number: int) -> int:
    return await tasks.io(number)


class WorkerSettings:
    functions: ClassVar = [no_op, io]
    redis_settings: ClassVar = REDIS
    max_jobs: ClassVar = place.CONCURRENCY


class ArqClient:
    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def enqueue(self, task: str, number: int) -> Any:
        return await self._pool.enqueue_job(task, number)

    async def result(self, handle: Any, timeout: float) -> Any:
        return await handle.result(timeout)


@asynccontextmanager
async def client() -> AsyncIterator[ArqClient]:
    pool = await create_pool(REDIS)
    yield ArqClient(pool)
    await pool.aclose()


def worker_command(_task: str) -> list[str]:
    settings, logs = f"{__name__}.WorkerSettings", f"{__name__}.QUIET"
    return [sys.executable, "-m", "arq", settings, "--custom-log-dict", logs]


CONTENDER = Contender(client, worker_command)
