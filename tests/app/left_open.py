"""`python left_open.py URL`: opens a queue three times, each time on a new event loop, and never closes it."""

from __future__ import annotations

import asyncio
import sys

from aioretryq import NotOpenError, TaskQueue


async def send(queue):
    await queue.send_task("x")
    assert await queue.AsyncResult("unknown").status() == "PENDING"
    return (await queue.broker.depth(["celery"]))["celery"]


async def open_and_send(queue):
    try:
        await send(queue)
    except NotOpenError:
        pass
    else:
        raise AssertionError("it was closed when its event loop finished")
    await queue.__aenter__()
    async with queue:
        return await send(queue)


def main(url):
    queue = TaskQueue(url)
    sys.stdout.write(f"{[asyncio.run(open_and_send(queue)) for _ in range(3)]}\n")


if __name__ == "__main__":
    main(sys.argv[1])
