"""Servers that several test modules share."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import redis

from redis_server import NoRedisServer, RedisServer, describe

if TYPE_CHECKING:
    from collections.abc import Iterator

# Programs under test must hear Ctrl-C: what is started in the background of a shell is told to ignore it, and its
# children would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
