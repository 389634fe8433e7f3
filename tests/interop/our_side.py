"""Our half of the interop tests: the same tasks, for `aioretryq worker our_side:queue`."""

from __future__ import annotations

import os

from aioretryq import Reject, TaskQueue

queue = TaskQueue(os.environ["INTEROP_REDIS"])


@queue.task(name="interop.add")
async def add(x: int, y: int) -> int:
    return x + y


@queue.task(name="interop.fail")
async def fail(message: str) -> None:
    raise ValueError(message, 42)


@queue.task(name="interop.flaky", autoretry_for=(OSError,), retry_backoff=0.01, max_retries=3, bind=True)
async def flaky(self, failures: int) -> int:
    if self.request.retries < failures:
        raise OSError(5, "not yet")
    return self.request.retries


@queue.task(name="interop.echo")
def echo(value: object) -> object:
    return value


@queue.task(name="interop.reject")
async def reject() -> None:
    raise Reject("nope", requeue=False)


@queue.task(name="interop.never", bind=True, max_retries=0)
async def never(self) -> None:
    self.retry()
