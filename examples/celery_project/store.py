"""The shop's database: a few keys in the same Redis."""

from __future__ import annotations

import os
from functools import cache

import redis


@cache
def database() -> redis.Redis:
    return redis.Redis.from_url(os.environ.get("SHOP_REDIS", "redis://localhost:6379/0"), decode_responses=True)


def note(task_id: str | None, what: str) -> None:
    """A line in the journal of a task; of the worker itself under `worker`."""
    database().rpush(f"shop:journal:{task_id or 'direct'}", what)


def journal(task_id: str) -> list[str]:
    return [str(line) for line in database().lrange(f"shop:journal:{task_id}", 0, -1)]
