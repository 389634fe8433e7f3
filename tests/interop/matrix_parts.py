"""What both halves of the matrix share: an exception, and a list in Redis that tasks write into to be seen."""

from __future__ import annotations

import os

import redis

URL = os.environ.get("INTEROP_REDIS", "redis://localhost")


class OutOfStock(Exception):
    """An application's own, with a constructor of its own."""

    def __init__(self, article: str, missing: int) -> None:
        super().__init__(article, missing)
        self.article = article
        self.missing = missing


def note(key: str, *words: object) -> None:
    """Leave a line where the test looks for it."""
    with redis.Redis.from_url(URL) as server:
        server.rpush(f"seen:{key}", " ".join(map(str, words)))
