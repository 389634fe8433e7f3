"""A real Celery worker is killed with messages in its hands: a worker of ours puts them back."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import celery
import pytest
import redis

from aioretryq.brokers.redis import RedisBroker
from aioretryq.config import Settings
from aioretryq.protocol import envelope as envelopes
from programs import aioretryq_worker, running

HERE = Path(__file__).parent


async def killed_with_messages(url: str, count: int, countdown: float) -> list[str]:
    """Celery holds what has a countdown in its memory; returns the ids once it is dead."""
    command = [sys.executable, "-m", "celery", "-A", "celery_side", "worker", "-P", "solo", "-l", "INFO"]
    with running(*command, env={"INTEROP_REDIS": url}, cwd=HERE) as worker, redis.Redis.from_url(url) as server:
        await asyncio.to_thread(worker.wait_for, " ready.", timeout=60)
        with celery.Celery(broker=url, set_as_current=False) as app:
            sent = [app.send_task("interop.add", (n, n), countdown=countdown) for n in range(count)]
        async with asyncio.timeout(30):
            while server.zcard("unacked_index") < count:
                await asyncio.sleep(0.01)
        worker.signal(signal.SIGKILL)
        worker.wait()
        assert server.hlen("unacked") == count
    return [result.id for result in sent]


@pytest.mark.parametrize("count", [3])
async def test_what_a_killed_celery_worker_held_comes_back(redis_url: str, count: int) -> None:
    ids = await killed_with_messages(redis_url, count, 600)
    settings = Settings()
    settings.update({"lease": 1.0, "broker_transport_options": {"visibility_timeout": 2}})
    recovered, started = 0, time.monotonic()
    async with RedisBroker.from_url(redis_url, settings) as broker, asyncio.timeout(30):
        while recovered < count:
            recovered += await broker.recover()
            await asyncio.sleep(0.1)
        assert time.monotonic() - started > 0.9  # the first sweep came late, and waited for a lease
        deliveries = (await broker.claim(["celery"], limit=10)).deliveries
    # In no order: Celery has taken them at the same second of its clock.
    assert {envelopes.decode(delivery.body).headers["id"] for delivery in deliveries} == set(ids)
    assert {(d.queue, d.redelivered, d.deliveries, d.interruptions) for d in deliveries} == {("celery", True, 2, 0)}
    with redis.Redis.from_url(redis_url) as server:
        tags = {delivery.tag.encode() for delivery in deliveries}
        assert set(server.hkeys("unacked")) == set(server.zrange("unacked_index", 0, -1)) == tags


async def test_a_worker_of_ours_runs_them(redis_url: str) -> None:
    ids = await killed_with_messages(redis_url, 3, 3)
    environment = {
        "INTEROP_REDIS": redis_url,
        "AIORETRYQ_LEASE": "1",
        "AIORETRYQ_BROKER_TRANSPORT_OPTIONS": '{"visibility_timeout": 2}',
    }
    with aioretryq_worker("our_side:queue", env=environment, cwd=HERE) as worker:
        await asyncio.to_thread(worker.wait_for, "succeeded", count=3)
    with celery.Celery(backend=redis_url, set_as_current=False) as app:
        values = [await asyncio.to_thread(app.AsyncResult(task_id).get, timeout=10) for task_id in ids]
    assert values == [0, 2, 4]
