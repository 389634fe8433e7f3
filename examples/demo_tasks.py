"""The task of examples.demo: an HTTP call that is tried again until it gets through."""

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import aiohttp

from aioretryq import Task, TaskQueue

queue = TaskQueue()
http: ContextVar[aiohttp.ClientSession] = ContextVar("http")


@queue.lifespan
async def http_session() -> AsyncIterator[None]:
    """One session for all tasks of a worker, so that connections are reused."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=1)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        http.set(session)
        yield


class ServerBusy(Exception):
    """The server has refused, and said when to come again."""


@queue.task(
    bind=True,
    autoretry_for=(aiohttp.ClientError, TimeoutError),
    max_retries=25,
    retry_backoff=0.1,
    retry_backoff_max=0.5,
    retry_jitter=True,
)
async def place_order(self: Task[..., Any], server: str, number: int) -> dict[str, int]:
    async with http.get().post(f"{server}/orders/{number}") as response:
        if response.status == 503:
            seconds = float(response.headers["Retry-After"])
            raise self.retry(exc=ServerBusy(f"order {number} was refused"), countdown=seconds)
        response.raise_for_status()
        receipt = await response.json()
    return {"order": receipt["order"], "attempts": self.request.retries + 1}
