"""Servers that several test modules share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from redis_server import NoRedisServer, RedisServer, describe

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_report_header() -> str:
    try:
        return f"redis: {describe()}"
    except NoRedisServer as missing:
        return f"redis: none ({missing})"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Shared by the whole run: a test that stops it starts it again."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Database 0, empty."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url
