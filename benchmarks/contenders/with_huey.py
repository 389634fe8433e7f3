"""huey on Redis with blocking pops, told of results; or on SQLite. Its worker runs threads or greenlets."""

from __future__ import annotations

from typing import Any

from huey import RedisHuey, SqliteHuey, chord
from redis import ConnectionPool

from benchmarks import place, tasks
from benchmarks.contenders.adapter import Adapter

SQLITE = "sqlite:///"


def opened() -> Any:
    if place.URL.startswith(SQLITE):
        return SqliteHuey("benchmarks", filename=place.URL.removeprefix(SQLITE))
    # Each of its threads holds one; redis-py allows 100 by default.
    pool = ConnectionPool.from_url(place.URL, max_connections=2000, socket_timeout=None)
    return RedisHuey("benchmarks", connection_pool=pool, blocking=True, notify_result=True)


huey = opened()
chord_of: Any = chord
FUNCTIONS: dict[str, Any] = {
    "no_op": tasks.plain_no_op,
    "io": tasks.plain_io,
    "echo": tasks.plain_echo,
    "total": tasks.plain_total,
}
TASKS = {name: huey.task()(function) for name, function in FUNCTIONS.items()}


class Huey(Adapter):
    blocking = True

    async def send(self, task: str, number: int, *more: Any, delay: float | None = None) -> Any:
        if delay is not None:
            return TASKS[task].schedule((number, *more), delay=delay)
        return TASKS[task](number, *more)

    async def send_chord(self, numbers: range, body: int) -> Any:
        header = [TASKS["no_op"].s(number) for number in numbers]
        return huey.enqueue(chord_of(header, TASKS["total"].s(number=body)))

    async def wait(self, handle: Any, timeout: float) -> Any:
        return handle.get(blocking=True, timeout=timeout, backoff=1.0, max_delay=0.005)


ADAPTER = Huey()
