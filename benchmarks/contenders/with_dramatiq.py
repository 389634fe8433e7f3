"""dramatiq on Redis, with results. Its worker runs threads, or greenlets as `dramatiq-gevent`."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from redis import Redis

from benchmarks import place, tasks
from benchmarks.contenders.adapter import Adapter

any_dramatiq: Any = dramatiq
CONNECTIONS = 2000
"""redis-py allows 100 by default, which 500 threads exceed."""


def connected() -> Any:
    return Redis.from_url(place.URL, max_connections=CONNECTIONS, socket_timeout=None)


broker: Any = RedisBroker(client=connected())
results: Any = RedisBackend(client=connected())
broker.add_middleware(Results(backend=results, store_results=True))
any_dramatiq.set_broker(broker)
FUNCTIONS: dict[str, Any] = {"no_op": tasks.plain_no_op, "io": tasks.plain_io, "echo": tasks.plain_echo}
TASKS = {name: any_dramatiq.actor(function, max_retries=0) for name, function in FUNCTIONS.items()}


class Dramatiq(Adapter):
    blocking = True

    async def send(self, task: str, number: int, *more: Any, delay: float | None = None) -> Any:
        milliseconds = None if delay is None else int(delay * 1000)
        return TASKS[task].send_with_options(args=(number, *more), delay=milliseconds)

    async def wait(self, handle: Any, timeout: float) -> Any:
        return handle.get_result(block=True, timeout=int(timeout * 1000))


ADAPTER = Dramatiq()
