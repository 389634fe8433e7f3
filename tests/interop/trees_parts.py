"""What both halves of the tree tests share: a line in Redis for each run of a task."""

from __future__ import annotations

import os

import redis

URL = os.environ.get("INTEROP_REDIS", "redis://localhost")
RAN = "ran"

_server = redis.Redis.from_url(URL)


def note(line: str) -> None:
    _server.rpush(RAN, line)
