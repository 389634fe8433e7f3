"""Celery on Redis: its documented settings for many short tasks."""

from __future__ import annotations

from typing import Any

from celery import Celery, chord
from celery.result import ResultSet

from benchmarks import place, tasks
from benchmarks.contenders.adapter import Adapter

create: Any = Celery
results_of: Any = ResultSet
chord_of: Any = chord
app = create("benchmarks", broker=place.URL, backend=place.URL)
app.conf.update(
    worker_prefetch_multiplier=4 if place.CONCURRENCY > 100 else 128,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
TASKS = {
    "no_op": app.task(tasks.plain_no_op),
    "io": app.task(tasks.plain_io),
    "echo": app.task(tasks.plain_echo),
    "total": app.task(tasks.plain_total),
}


class WithCelery(Adapter):
    blocking = True
    bulk = True

    async def send(self, task: str, number: int, *more: Any, delay: float | None = None) -> Any:
        return TASKS[task].apply_async((number, *more), countdown=delay)

    async def send_many(self, task: str, numbers: range) -> list[Any]:
        with app.producer_pool.acquire(block=True) as producer:
            return [TASKS[task].apply_async((number,), producer=producer) for number in numbers]

    async def send_chord(self, numbers: range, body: int) -> Any:
        return chord_of(TASKS["no_op"].s(number) for number in numbers)(TASKS["total"].s(body))

    async def wait(self, handle: Any, timeout: float) -> Any:
        return handle.get(timeout)

    async def collect(self, handles: list[Any], timeout: float) -> list[Any]:
        values: list[Any] = results_of(handles).get(timeout)
        return values


ADAPTER = WithCelery()
