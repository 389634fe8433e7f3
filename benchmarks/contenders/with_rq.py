"""rq on Redis. Its SimpleWorker does not fork for each task."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from redis import Redis
from rq import Queue

from benchmarks import place, tasks
from benchmarks.contenders.adapter import Adapter

queue: Any = Queue("default", connection=Redis.from_url(place.URL))
TASKS: dict[str, Any] = {"no_op": tasks.plain_no_op, "io": tasks.plain_io, "echo": tasks.plain_echo}


class Rq(Adapter):
    blocking = True
    bulk = True

    async def send(self, task: str, number: int, *more: Any, delay: float | None = None) -> Any:
        if delay is not None:
            return queue.enqueue_in(timedelta(seconds=delay), TASKS[task], number, *more)
        return queue.enqueue(TASKS[task], number, *more)

    async def send_many(self, task: str, numbers: range) -> list[Any]:
        jobs: list[Any] = []
        for first in range(0, len(numbers), 1000):
            part = numbers[first : first + 1000]
            jobs += queue.enqueue_many([Queue.prepare_data(TASKS[task], (number,)) for number in part])
        return jobs

    async def wait(self, handle: Any, timeout: float) -> Any:
        return handle.latest_result(timeout=max(1, int(timeout))).return_value


ADAPTER = Rq()
