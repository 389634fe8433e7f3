"""The world of the broker contracts on Redis."""

from __future__ import annotations

import contextlib
import time

import redis

from aioretryq.brokers.redis import RedisBroker
from aioretryq.config import Settings
from aioretryq.protocol import envelope as envelopes
from contracts.broker_world import LEASE


def open_broker(url: str, **settings: object) -> RedisBroker:
    conf = Settings()
    conf.update({"lease": LEASE, **settings})
    return RedisBroker.from_url(url, conf)


def task_message(name: str = "a", queue: str = "celery", priority: int = 0) -> bytes:
    properties = {"delivery_tag": name, "priority": priority}
    properties["delivery_info"] = {"exchange": "", "routing_key": queue}
    headers = {"task": "tasks.add", "id": name, "lang": "py"}
    return envelopes.encode(envelopes.Envelope(b"[[1, 2], {}, {}]", headers=headers, properties=properties))


class RedisWorld:
    """Time is the server's own: to let it pass, everything that is noted moves into the past."""

    def __init__(self, stack: contextlib.AsyncExitStack, url: str) -> None:
        self._stack = stack
        self._url = url

    async def connect(self, **settings: object) -> RedisBroker:
        return await self._stack.enter_async_context(open_broker(self._url, **settings))

    async def advance(self, seconds: float) -> None:
        with redis.Redis.from_url(self._url) as client:
            timed = [b"aioretryq.leases", b"aioretryq.revoked", b"aioretryq.sent", *client.keys("*.schedule.*")]
            for key in timed:
                if scores := client.zrange(key, 0, -1, withscores=True):
                    client.zadd(key, {member: score - seconds for member, score in scores})
            for field, value in client.hgetall("aioretryq.sweep").items():
                client.hset("aioretryq.sweep", field, float(value) - seconds)

    def now(self) -> float:
        return time.time()
