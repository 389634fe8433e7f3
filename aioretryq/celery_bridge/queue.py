"""A queue whose tasks are those of a Celery application."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from aioretryq.app import TaskQueue
from aioretryq.celery_bridge.task import CeleryTask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from aioretryq.task import Task

MOST_THREADS = 10_000
"""More are never asked for at once: the worker limits functions by its threads, and coroutines by its concurrency."""


class CeleryQueue(TaskQueue):
    """`sender` stands for Celery's worker in signals, `hostname` is the name of the worker."""

    def __init__(self, app: Any, *, hostname: str, sender: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.celery = app
        self.hostname = hostname
        self.sender = sender
        self._bridges: dict[str, CeleryTask] = {}
        # Threads that stay: Celery has connections to its servers for each of them.
        self._threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="celery-task")
        self.lifespan(self._let_threads_end)

    async def _let_threads_end(self) -> AsyncIterator[None]:
        yield
        self._threads.shutdown(wait=False, cancel_futures=True)

    def in_thread(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        return {**super().tasks, **{name: self.find_task(name) for name in list(self.celery.tasks)}}

    def find_task(self, name: str) -> Task[Any, Any]:
        found = self._bridges.get(name)
        if found is not None:
            return found
        task = self.celery.tasks.get(name)
        if task is None:
            return super().find_task(name)
        made = self._bridges[name] = CeleryTask(task, self)
        return made

    @property
    def results_at(self) -> str | None:
        uri: str = self.celery.backend.as_uri()
        return None if uri == "disabled://" else uri
