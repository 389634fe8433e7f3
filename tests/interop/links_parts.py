"""What both halves of the link tests share: a line in Redis for each run that a test wants to see."""

from __future__ import annotations

import os

import redis

URL = os.environ.get("INTEROP_REDIS", "redis://localhost")


def note(key: str, *words: object) -> None:
    with redis.Redis.from_url(URL) as server:
        server.rpush(f"seen:{key}", " ".join(map(str, words)))
