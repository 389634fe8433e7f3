"""A Redis server of their own, keys, and a Celery worker that speaks every serializer, for tests that share them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.security.serialization import register_auth
from kombu.serialization import registry
from protocol.keys import identity

from aioretryq import TaskQueue
from programs import running
from redis_server import RedisServer

HERE = Path(__file__).parent
SERIALIZERS = ("json", "yaml", "msgpack", "pickle", "auth")
COMPRESSIONS = ("gzip", "bzip2", "lzma", "brotli", "zstd")
PATIENCE = 20.0


@dataclass(frozen=True)
class Fleet:
    url: str
    ours: dict[str, str]
    """Settings that sign as us; Celery's half signs as somebody else, and each trusts the other."""

    def queue(self, **settings: Any) -> TaskQueue:
        given = {"accept_content": SERIALIZERS, "task_default_queue": "ours", **self.ours, **settings}
        return TaskQueue(self.url, **given)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("keys")
    ours, theirs = (identity(folder, name, folder / "store") for name in ("ours", "theirs"))
    server = RedisServer()
    server.start()
    command = [sys.executable, "-m", "celery", "-A", "formats_celery", "worker", "-P", "solo", "-l", "INFO"]
    # It would not accept pickles as root, which is who tests run as in containers.
    env = {"INTEROP_REDIS": server.url, "INTEROP_KEYS": json.dumps(theirs), "C_FORCE_ROOT": "1"}
    register_auth(
        Path(theirs["security_key"]).read_text(),
        None,
        Path(theirs["security_certificate"]).read_text(),
        theirs["security_cert_store"],
    )
    try:
        with running(*command, "--without-gossip", "--without-mingle", env=env, cwd=HERE) as program:
            program.wait_for(" ready.", timeout=60)
            yield Fleet(server.url, ours)
    finally:
        registry.unregister("auth")
        server.close()


@pytest.fixture
def client(fleet: Fleet) -> Iterator[Celery]:
    """A Celery client in this process: call what waits in a thread."""
    with celery_app(fleet) as app:
        yield app


@contextmanager
def celery_app(fleet: Fleet, **settings: Any) -> Iterator[Celery]:
    """A Celery application that leaves nothing open."""
    with Celery("client", broker=fleet.url, backend=fleet.url, set_as_current=False) as app:
        app.conf.update(accept_content=list(SERIALIZERS), task_default_queue="ours", **settings)
        app.conf.result_backend_thread_safe = True  # or each thread that waits would have one of its own
        try:
            yield app
        finally:
            app.backend.result_consumer.stop()
            app.backend.result_consumer._pubsub = None  # or destructors of results would connect again
            app.backend.client.connection_pool.disconnect()
