"""{Celery client, our client} x {Celery worker, our worker, both on one queue} x everything a task can be.

`make matrix` runs it and prints the table.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from celery import Celery
from matrix_cases import CASES, Cell, Client
from matrix_clients import CeleryClient, OurClient

from aioretryq import TaskQueue
from programs import running
from redis_server import RedisServer

HERE = Path(__file__).parent
WORKERS = ("celery", "ours", "both")
ALL_CONTENT = ("json", "yaml", "msgpack", "pickle")

HOLES: dict[tuple[str, str, str], str] = {}
"""(client, worker, case) -> why it cannot be; shown in the table."""

pytestmark = [
    pytest.mark.xdist_group("matrix"),
    # Celery's client leaves sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Redis of their own: the workers live as long as the module."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def fleet(server: RedisServer) -> Iterator[str]:
    """One worker of each kind with a queue of its own, and one of each kind that share a third."""
    env = {"INTEROP_REDIS": server.url, "C_FORCE_ROOT": "1"}  # Celery takes no pickles as root otherwise
    celery = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "matrix_celery",
        "worker",
        "-P",
        "threads",
        "-c",
        "4",
        "-l",
        "INFO",
    ]
    ours = [sys.executable, "-m", "aioretryq", "worker", "matrix_ours:queue"]
    with ExitStack() as stack:
        started = [
            stack.enter_context(running(*celery, "-Q", "to-celery,to-both", env=env, cwd=HERE)),
            stack.enter_context(running(*ours, "-Q", "to-ours,to-both", env=env, cwd=HERE)),
        ]
        started[0].wait_for(" ready.", timeout=60)
        started[1].wait_for("is ready", timeout=60)
        try:
            yield server.url
        finally:
            sys.stdout.writelines(f"{program.output}\n" for program in started)  # shown where a test fails


@pytest.fixture(scope="module")
def celery_app(fleet: str) -> Iterator[Celery]:
    with Celery("client", broker=fleet, backend=fleet, set_as_current=False) as app:
        app.conf.accept_content = list(ALL_CONTENT)
        yield app
        app.backend.result_consumer.stop()
        app.backend.client.connection_pool.disconnect()
    del app
    gc.collect()  # now, while what it complains of is expected


@pytest.fixture(params=["Celery client", "our client"])
async def make_client(
    request: pytest.FixtureRequest, fleet: str, celery_app: Celery
) -> AsyncIterator[Callable[[str], Client]]:
    if request.param == "Celery client":
        yield lambda name: CeleryClient(celery_app, name)
    else:
        async with TaskQueue(fleet, accept_content=ALL_CONTENT) as queue:
            yield lambda name: OurClient(queue, name)


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("name", list(CASES))
async def test_cell(
    name: str,
    worker: str,
    make_client: Callable[[str], Client],
    fleet: str,
    record_property: Callable[[str, object], None],
) -> None:
    client = make_client(f"to-{worker}")
    hole = HOLES.get((client.name, worker, name))
    record_property("matrix", (name, client.name, worker, hole))
    if hole:
        pytest.skip(hole)
    with redis.Redis.from_url(fleet) as seen:
        async with asyncio.timeout(60):
            await CASES[name](Cell(client, worker, seen))
