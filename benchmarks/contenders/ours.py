"""aioretryq, on any of its brokers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq import TaskQueue, chord
from benchmarks import place, tasks
from benchmarks.contenders.adapter import Adapter

if TYPE_CHECKING:
    from aioretryq import AsyncResult

queue = TaskQueue(place.URL, worker_concurrency=place.CONCURRENCY)


DONE = (tasks.no_op, tasks.io, tasks.echo, tasks.plain_no_op, tasks.total)


def tasks_of(queue: TaskQueue) -> dict[str, Any]:
    return {each.__name__: queue.task(each) for each in DONE}


TASKS = tasks_of(queue)


class Ours(Adapter):
    bulk = hasattr(TASKS["no_op"], "delay_many")

    def __init__(self, queue: TaskQueue, tasks: dict[str, Any]) -> None:
        self._queue = queue
        self._tasks = tasks

    async def open(self) -> None:
        await self._queue.__aenter__()

    async def close(self) -> None:
        await self._queue.__aexit__(None, None, None)

    def another(self) -> Ours:
        other = TaskQueue(place.URL)
        return Ours(other, tasks_of(other))

    async def send(self, task: str, number: int, *more: Any, delay: float | None = None) -> AsyncResult[Any]:
        sent: AsyncResult[Any]
        if delay is not None:
            sent = await self._tasks[task].apply_async((number, *more), countdown=delay)
        else:
            sent = await self._tasks[task].delay(number, *more)
        return sent

    async def send_many(self, task: str, numbers: range) -> list[Any]:
        if not self.bulk:
            return await self.send_at_once(task, numbers)
        return list(await self._tasks[task].delay_many((number,) for number in numbers))

    async def send_chord(self, numbers: range, body: int) -> Any:
        no_op, total = self._tasks["no_op"], self._tasks["total"]
        return await chord((no_op.s(number) for number in numbers), total.s(body)).delay()

    async def wait(self, handle: AsyncResult[Any], timeout: float) -> Any:
        return await handle.get(timeout)


ADAPTER = Ours(queue, TASKS)
