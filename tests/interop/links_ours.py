"""Our half of the link tests, for `aioretryq worker links_ours:queue`.

With DIE_AT, the worker is killed the moment that operation of the result backend is done for the part that completes
a chord.
"""

from __future__ import annotations

import os
import signal

from links_parts import URL, note

from aioretryq import TaskQueue
from aioretryq.backends.redis import RedisBackend

queue = TaskQueue(URL, unknown_task_delay=0.05)


@queue.task(name="l.add")
async def add(x, y=0):
    return x + y


@queue.task(name="l.total")
def total(numbers):
    return sum(numbers)


@queue.task(name="l.echo")
async def echo(*args):
    return args[0] if len(args) == 1 else list(args)


@queue.task(name="l.seen")
def seen(value, key):
    note(key, "ours", value)
    return value


@queue.task(name="l.fail")
async def fail(*args):
    raise ValueError("broken")


@queue.task(name="l.flaky", bind=True, max_retries=3)
async def flaky(self, value, failures=1):
    if self.request.retries < failures:
        raise self.retry(countdown=0)
    return value


@queue.task(name="l.told")
def told(request, exc, traceback, key):
    note(key, "new", request.id, type(exc).__name__)


@queue.task(name="l.told_id")
async def told_id(task_id, key):
    note(key, "old", task_id)


def deadly(operation):
    async def dying(*args):
        answer = await operation(*args)
        if any(answer):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return dying


if point := os.environ.get("DIE_AT"):
    setattr(RedisBackend, point, deadly(getattr(RedisBackend, point)))
