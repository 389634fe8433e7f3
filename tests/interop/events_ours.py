"""The tasks of the tests of events, for `aioretryq worker events_ours:queue`."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aioretryq import Reject, TaskQueue

queue = TaskQueue(os.environ["INTEROP_REDIS"])


@queue.task(name="events.add")
async def add(x: int, y: int) -> int:
    return x + y


@queue.task(name="events.plain", bind=True)
def plain(self: Any, x: int) -> int:
    self.send_event("task-progress", percent=50)
    return x


@queue.task(name="events.fail")
async def fail() -> None:
    raise ValueError("bad", 42)


@queue.task(name="events.flaky", bind=True, max_retries=3)
async def flaky(self: Any, failures: int) -> int:
    if self.request.retries < failures:
        self.retry(exc=KeyError("k"), countdown=0.05)
    return failures


@queue.task(name="events.reject")
async def reject() -> None:
    raise Reject("no", requeue=False)


@queue.task(name="events.endless")
async def endless() -> None:
    await asyncio.Event().wait()
