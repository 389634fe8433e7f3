"""The task of examples.demo: an HTTP call that is tried again until it gets through."""

from collections.abc import AsyncGenerator
from typing import Any

import aiohttp

from aioretryq import Task, TaskQueue

queue = TaskQueue()


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
    session = await anext(sessions)
    async with session.post(f"{server}/orders/{number}") as response:
        if response.status == 503:
            seconds = float(response.headers["Retry-After"])
            raise self.retry(exc=ServerBusy(f"order {number} was refused"), countdown=seconds)
        response.raise_for_status()
        receipt = await response.json()
    return {"order": receipt["order"], "attempts": self.request.retries + 1}


async def open_session() -> AsyncGenerator[aiohttp.ClientSession, None]:
    """The same session again and again, so that connections are reused; closed when the event loop ends."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=1)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            yield session


sessions = open_session()
