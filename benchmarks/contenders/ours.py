"""aioretryq, on any of its brokers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq import TaskQueue
from benchmarks import place, tasks
from benchmarks.contenders.adapter import Adapter

if TYPE_CHECKING:
    from aioretryq import AsyncResult

queue = TaskQueue(place.URL, worker_concurrency=place.CONCURRENCY)
TASKS: dict[str, Any] = {each.__name__: queue.task(each) for each in (tasks.no_op, tasks.io, tasks.echo)}


class Ours(Adapter):
    bulk = hasattr(TASKS["no_op"], "delay_many")

    async def open(self) -> None:
        await queue.__aenter__()

    async def close(self) -> None:
        await queue.__aexit__(None, None, None)

    async def send(self, task: str, number: int, *more: Any, delay: float | None = None) -> AsyncResult[Any]:
        sent: AsyncResult[Any]
        if delay is not None:
            sent = await TASKS[task].apply_async((number, *more), countdown=delay)
        else:
            sent = await TASKS[task].delay(number, *more)
        return sent

    async def send_many(self, task: str, numbers: range) -> list[Any]:
        if not self.bulk:
            return await self.send_at_once(task, numbers)
        return list(await TASKS[task].delay_many((number,) for number in numbers))

    async def wait(self, handle: AsyncResult[Any], timeout: float) -> Any:
        return await handle.get(timeout)


ADAPTER = Ours()
