"""taskiq on Redis streams (its list broker loses what a dead worker held), results in Redis, with uvloop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from taskiq import TaskiqScheduler
from taskiq_redis import ListRedisScheduleSource, RedisAsyncResultBackend, RedisStreamBroker

from benchmarks import place, tasks
from benchmarks.contenders.adapter import Adapter

POLL = 0.005
"""Seconds between looks for a result: 0.2 by default."""

results: Any = RedisAsyncResultBackend(place.URL)
broker: Any = RedisStreamBroker(place.URL, consumer_id="0").with_result_backend(results)
TASKS = {each.__name__: broker.register_task(each) for each in (tasks.no_op, tasks.io, tasks.echo)}
source: Any = ListRedisScheduleSource(place.URL)
scheduler: Any = TaskiqScheduler(broker, [source])


class Taskiq(Adapter):
    async def open(self) -> None:
        await broker.startup()
        await source.startup()

    async def close(self) -> None:
        await broker.shutdown()

    async def send(self, task: str, number: int, *more: Any, delay: float | None = None) -> Any:
        if delay is not None:
            return await TASKS[task].schedule_by_time(source, datetime.now(UTC) + timedelta(seconds=delay), number)
        return await TASKS[task].kiq(number, *more)

    async def wait(self, handle: Any, timeout: float) -> Any:
        return (await handle.wait_result(timeout=timeout, check_interval=POLL)).return_value


ADAPTER = Taskiq()
