"""What a worker tells of a task that runs while its connections are replaced."""

from __future__ import annotations

import asyncio
import logging

from faults.proxy import Proxy
from watching import watching

from aioretryq import TaskQueue, Worker
from queues import soon, until


async def test_a_task_that_runs_over_an_outage_tells_of_its_end(redis_server, redis_url, caplog):
    caplog.set_level(logging.WARNING)
    proxy = Proxy(redis_server.port)
    proxy.start()
    go_on = asyncio.Event()
    options = {"redis_socket_timeout": 0.5, "broker_connection_timeout": 0.5, "worker_send_task_events": True}
    try:
        async with (
            TaskQueue(redis_url) as watcher,
            watching(watcher) as told,
            TaskQueue(f"redis://127.0.0.1:{proxy.port}/0", **options) as queue,
        ):

            @queue.task(name="work")
            async def work():
                await go_on.wait()

            async with Worker(queue, name="w1@here").running():
                result = await watcher.send_task("work")
                await told.wait(result.id, "task-started")
                proxy.cut()
                await until(lambda: "is gone" in caplog.text)
                proxy.heal()
                go_on.set()
                await told.wait(result.id, "task-succeeded")
                await soon(result.get())
                assert told.types(result.id) == ["task-received", "task-started", "task-succeeded"]
    finally:
        proxy.close()
