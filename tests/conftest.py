"""Servers that several test modules share."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import redis

import matrix_table
from aioretryq.registration import SHARED
from redis_server import NoRedisServer, RedisServer, describe

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# Programs under test must hear Ctrl-C: what is started in the background of a shell is told to ignore it, and its
# children would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# How long an example takes says nothing where several tests share a processor; the timeout of the test remains.
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Twice the processors: most tests wait for something most of the time. Each has servers of its own."""
    return min(2 * (os.cpu_count() or 1), 16)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Where tests run in several processes, what they log and show is sent; lone surrogates could not be."""
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_sendable(key): _sendable(each) for key, each in value.items()}
        case list() | tuple():
            return type(value)(map(_sendable, value))
        case _:
            return value


@pytest.fixture(autouse=True)
def shared_tasks_stay_here() -> Iterator[None]:
    """They are known to every queue of a process: to those of all tests after the one that defines some."""
    before = dict(SHARED)
    yield
    SHARED.clear()
    SHARED.update(before)


def pytest_report_header() -> str:
    try:
        return f"redis: {describe()}"
    except NoRedisServer as missing:
        return f"redis: none ({missing})"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in matrix_table.lines(terminalreporter.stats):
        terminalreporter.write_line(line)


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
