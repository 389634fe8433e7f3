"""Everything that is told while a block lasts."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from queues import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aioretryq import TaskQueue
    from aioretryq.events import Event


class Told(list["Event"]):
    def of(self, uuid: str) -> list[Event]:
        """About one task, in the order of its worker's clock."""
        return sorted((event for event in self if event.uuid == uuid), key=lambda event: event.clock)

    def types(self, uuid: str) -> list[str]:
        return [event.type for event in self.of(uuid)]

    async def wait(self, uuid: str, kind: str, count: int = 1) -> Event:
        """The event of that type about that task."""
        await until(lambda: self.types(uuid).count(kind) >= count)
        return [event for event in self.of(uuid) if event.type == kind][count - 1]

    async def of_worker(self, kind: str, count: int = 1) -> Event:
        await until(lambda: sum(event.type == kind for event in self) >= count)
        return [event for event in self if event.type == kind][count - 1]


@asynccontextmanager
async def watching(queue: TaskQueue, *types: str) -> AsyncIterator[Told]:
    told = Told()

    async def listen() -> None:
        async for event in events:
            told.append(event)

    async with queue.events(*types) as events:
        task = asyncio.create_task(listen())
        yield told
        task.cancel()
