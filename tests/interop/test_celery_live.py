"""The real Celery on the other side of the wire, each way."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from aioretryq import TaskQueue
from programs import Program, aioretryq_worker, running

HERE = Path(__file__).parent


def celery_client(url: str, name: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "celery_side.py", name, json.dumps(arguments), json.dumps(options)],
        env={**os.environ, "INTEROP_REDIS": url},
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture
def our_worker(redis_url: str) -> Iterator[Program]:
    with aioretryq_worker("our_side:queue", "-l", "debug", env={"INTEROP_REDIS": redis_url}, cwd=HERE) as program:
        yield program


@pytest.fixture
def celery_worker(redis_url: str) -> Iterator[Program]:
    command = [sys.executable, "-m", "celery", "-A", "celery_side", "worker", "-P", "solo", "-l", "INFO"]
    with running(*command, env={"INTEROP_REDIS": redis_url}, cwd=HERE) as program:
        program.wait_for(" ready.", timeout=60)
        yield program


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[TaskQueue]:
    async with TaskQueue(redis_url) as queue:
        yield queue


class TestCeleryClientOurWorker:
    def test_value(self, our_worker: Program, redis_url: str) -> None:
        answer = celery_client(redis_url, "interop.add", 2, 3)
        assert (answer["value"], answer["state"]) == (5, "SUCCESS")

    def test_exception_is_the_original(self, our_worker: Program, redis_url: str) -> None:
        answer = celery_client(redis_url, "interop.fail", "bad")
        assert (answer["error"], answer["module"], answer["args"]) == ("ValueError", "builtins", ["bad", 42])

    def test_retries_run_here_under_the_same_id(self, our_worker: Program, redis_url: str) -> None:
        assert celery_client(redis_url, "interop.flaky", 2)["value"] == 2

    def test_our_exceptions_arrive_as_celerys(self, our_worker: Program, redis_url: str) -> None:
        rejected = celery_client(redis_url, "interop.reject")
        assert (rejected["error"], rejected["module"]) == ("Reject", "celery.exceptions")
        exhausted = celery_client(redis_url, "interop.never")
        assert (exhausted["error"], exhausted["module"]) == ("MaxRetriesExceededError", "celery.exceptions")

    def test_countdown(self, our_worker: Program, redis_url: str) -> None:
        assert celery_client(redis_url, "interop.add", 1, 1, countdown=0.5)["value"] == 2

    def test_old_protocol(self, our_worker: Program, redis_url: str) -> None:
        assert celery_client(redis_url, "interop.add", 4, 4, priority=9)["value"] == 8


class TestOurClientCeleryWorker:
    async def test_value(self, celery_worker: Program, queue: TaskQueue) -> None:
        result = await queue.send_task("interop.add", [2, 3])
        assert await result.get(timeout=20) == 5
        assert await result.status() == "SUCCESS"

    async def test_exception_is_the_original(self, celery_worker: Program, queue: TaskQueue) -> None:
        result = await queue.send_task("interop.fail", ["bad"])
        with pytest.raises(ValueError, match="bad") as caught:
            await result.get(timeout=20)
        assert caught.value.args == ("bad", 42)
        assert "ValueError" in (await result.traceback() or "")

    async def test_retries_run_there(self, celery_worker: Program, queue: TaskQueue) -> None:
        assert await (await queue.send_task("interop.flaky", [2])).get(timeout=20) == 2

    async def test_types_survive_the_way_there_and_back(self, celery_worker: Program, queue: TaskQueue) -> None:
        value = {"when": datetime(2030, 1, 2, tzinfo=UTC), "raw": b"\xff\x00", "text": "é", "big": 2**70}
        assert await (await queue.send_task("interop.echo", [value])).get(timeout=20) == value

    async def test_unknown_task_there_is_an_error_here(self, celery_worker: Program, queue: TaskQueue) -> None:
        result = await queue.send_task("interop.nowhere")
        with pytest.raises(Exception, match=r"interop\.nowhere") as caught:
            await result.get(timeout=20)
        assert type(caught.value).__name__ == "NotRegistered"

    async def test_many_at_once(self, celery_worker: Program, queue: TaskQueue) -> None:
        results = await asyncio.gather(*[queue.send_task("interop.add", [n, 1]) for n in range(100)])
        assert await asyncio.gather(*[r.get(timeout=30) for r in results]) == list(range(1, 101))


async def test_tasks_only_celery_knows_get_to_it_through_a_shared_queue(
    celery_worker: Program, queue: TaskQueue, redis_url: str
) -> None:
    env = {"INTEROP_REDIS": redis_url, "AIORETRYQ_UNKNOWN_TASK_DELAY": "0.2"}
    with aioretryq_worker("our_side:queue", env=env, cwd=HERE):
        # Each is offered until it is Celery that takes it, which is a matter of chance.
        results = [await queue.send_task("interop.celery_only", [number]) for number in range(5)]
        assert await asyncio.gather(*[r.get(timeout=90) for r in results]) == list(range(5))


async def test_the_message_in_the_list_is_celerys(queue: TaskQueue, redis_url: str) -> None:
    """What `redis-cli lrange celery 0 0` shows: all the keys a Celery client writes, and none it does not."""
    result = await queue.send_task("interop.add", [2, 3])
    with redis_client.Redis.from_url(redis_url) as client:
        (raw,) = client.lrange("celery", 0, 0)
    ours = json.loads(raw)
    golden = json.loads((HERE.parent / "golden" / "task_messages_v2.json").read_text())
    theirs = golden["send_task"]["keys"]["celery"]["entries"][0]["raw"]
    assert ours.keys() == theirs.keys()
    assert ours["headers"].keys() == theirs["headers"].keys()
    assert ours["properties"].keys() == theirs["properties"].keys()
    assert ours["headers"]["id"] == ours["properties"]["correlation_id"] == result.id
