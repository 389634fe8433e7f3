"""Where queues of these tests live: one URL for each built-in broker."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from aioretryq.protocol.deadletter import DeadLetter, decode_dead_letter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from aioretryq import TaskQueue

BROKERS = ("memory", "sqlite", "redis")

PATIENCE = 20.0
"""Seconds until a test gives up on something that should happen at once: the machine may be busy."""


def memory_url() -> str:
    """Shared by the queues of one test that are given the same one."""
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture(params=BROKERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place for messages and results, on each broker in turn."""
    if request.param == "memory":
        return memory_url()
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/queue.sqlite3"
    found: str = request.getfixturevalue("redis_url")
    return found


async def soon(waiting: Awaitable[Any]) -> Any:
    """What is awaited; TimeoutError instead of a hanging test."""
    async with asyncio.timeout(PATIENCE):
        return await waiting


async def until(condition: Callable[[], bool], *, patience: float = PATIENCE) -> None:
    """For what no event tells of: look again and again, until it is so."""
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(0.001)


async def dead_letters(queue: TaskQueue, count: int) -> list[DeadLetter]:
    """Once there are that many: a caller gets its result before the message is buried."""
    async with asyncio.timeout(PATIENCE):
        while len(entries := await queue.broker.dead(limit=count + 1)) < count:
            await asyncio.sleep(0.001)
    assert len(entries) == count
    return [decode_dead_letter(entry.content) for entry in entries]
