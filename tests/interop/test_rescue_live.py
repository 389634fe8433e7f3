"""A chord that Celery sent, whose body no Celery worker sends any more: ours notices."""

from __future__ import annotations

import signal
import sys
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from celery import Celery, chord
from celery_client import celery_client

from programs import aioretryq_worker, running

HERE = Path(__file__).parent
PATIENCE = 60


@pytest.fixture
def client(redis_url: str):
    with celery_client(redis_url) as app:
        yield app


def counted(server: redis.Redis, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while [server.zcard(key) for key in server.keys("celery-taskset-meta-*.j")] != [count]:
        assert time.monotonic() < deadline, "the parts do not return"
        time.sleep(0.01)


def test_a_celery_worker_is_killed_when_it_is_about_to_send_a_body(redis_url: str, client: Celery) -> None:
    """Its message was acknowledged before it ran, as Celery does: it does not come back."""
    env, key = {"INTEROP_REDIS": redis_url, "AIORETRYQ_LEASE": "1"}, uuid.uuid4().hex
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "links_doomed",
        "worker",
        "-P",
        "solo",
        "-l",
        "INFO",
        "-Q",
        "theirs",
    ]
    with ExitStack() as stack:
        server = stack.enter_context(redis.Redis.from_url(redis_url))
        ours = stack.enter_context(aioretryq_worker("links_ours:queue", "-Q", "ours", env=env, cwd=HERE))
        add = client.signature("l.add")
        header = [add.clone((1,)).set(queue="ours"), add.clone((2,)).set(queue="theirs")]
        result = chord(header, client.signature("l.seen", args=(key,), queue="ours")).apply_async()
        counted(server, 1)
        doomed = stack.enter_context(running(*command, "--without-mingle", "--without-gossip", env=env, cwd=HERE))
        assert doomed.wait() == -signal.SIGKILL
        counted(server, 2)
        assert result.get(timeout=PATIENCE) == [1, 2]
        assert server.lrange(f"seen:{key}", 0, -1) == [b"ours [1, 2]"]
        assert "is rescued (2 of 2 parts have returned" in ours.output
        deadline = time.monotonic() + PATIENCE
        while server.keys("celery-taskset-meta-*.r") or server.zcard("aioretryq.chords"):
            assert time.monotonic() < deadline, "the chord is not closed"
            time.sleep(0.01)
