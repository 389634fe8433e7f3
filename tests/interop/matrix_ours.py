"""The tasks of the matrix as an aioretryq application."""

from __future__ import annotations

import asyncio

from matrix_parts import URL, OutOfStock, note

from aioretryq import TaskQueue

queue = TaskQueue(URL)
queue.conf.update(accept_content=("json", "yaml", "msgpack", "pickle"), result_extended=True)


@queue.task(name="m.add")
async def add(x, y):
    return x + y


@queue.task(name="m.who")
async def who():
    return "ours"


@queue.task(name="m.echo")
async def echo(value):
    return value


@queue.task(name="m.total")
async def total(values):
    return sum(values)


@queue.task(name="m.flaky", bind=True, max_retries=3)
async def flaky(self, failures):
    if self.request.retries < failures:
        raise self.retry(exc=OSError(5, "not yet"), countdown=0.05)
    return self.request.retries


@queue.task(name="m.fail")
async def fail(article, missing):
    raise OutOfStock(article, missing)


@queue.task(name="m.broken")
async def broken(*args):
    raise ValueError("broken", 42)


@queue.task(name="m.seen")
def seen(key, *args):
    note(key, *args)
    return key


@queue.task(name="m.sleep")
async def sleep(seconds):
    await asyncio.sleep(seconds)
    return seconds


@queue.task(name="m.told")
def told(task_id):
    note(task_id, "told", task_id)


@queue.task(name="m.told_why")
def told_why(request, exc, traceback):
    note(request.id, "told why", request.id, type(exc).__name__)
