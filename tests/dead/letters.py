"""Entries for the tests: what workers would have buried."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

from aioretryq import TaskQueue
from aioretryq.message import DeadEntry, TaskMessage
from aioretryq.protocol.deadletter import DeadLetter, encode_dead_letter, entry_id
from aioretryq.protocol.task import encode_task

_numbers = itertools.count()


def task_payload(task: str = "app.add", args: Sequence[Any] = (2, 3), *, task_id: str = "t1", **fields: Any) -> bytes:
    message = TaskMessage(id=task_id, task=task, args=list(args), **fields)
    return encode_task(message, tag="old-tag")


def letter(**fields: Any) -> DeadLetter:
    given = {
        "reason": "failed",
        "queue": "celery",
        "payload": task_payload(),
        "time": time.time(),
        "worker": "w1@host",
        "task": "app.add",
        "task_id": "t1",
        "error": "ValueError('bad')",
        "attempts": 1,
    }
    return DeadLetter(**{**given, **fields})


def entry(ago: float = 0.0, **fields: Any) -> DeadEntry:
    """Buried `ago` seconds ago."""
    when = time.time() - ago
    return DeadEntry(entry_id(when, f"{next(_numbers):08}"), encode_dead_letter(letter(time=when, **fields)))


def numbered(count: int, **fields: Any) -> list[DeadEntry]:
    """Of tasks t0, t1, ..., the oldest first."""
    return [
        entry(ago=count - n, payload=task_payload(args=[n, n], task_id=f"t{n}"), task_id=f"t{n}", **fields)
        for n in range(count)
    ]


def unreadable(ago: float = 0.0, content: bytes = b"\xff nothing") -> DeadEntry:
    return DeadEntry(entry_id(time.time() - ago, f"{next(_numbers):08}"), content)


async def listed(queue: TaskQueue, /, **filters: Any) -> list[str | None]:
    """Task ids of what is listed."""
    return [found.task_id async for found in queue.dead_letters.list(**filters)]


async def waiting(queue: TaskQueue, name: str = "celery") -> int:
    return (await queue.broker.depth([name]))[name]
