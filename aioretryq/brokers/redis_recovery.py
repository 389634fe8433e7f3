"""Messages whose holders are gone: found, and put back to the front of their queues."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

from aioretryq import routing
from aioretryq.brokers.redis_history import after_crash, after_interruption
from aioretryq.brokers.redis_keys import ELSEWHERE, Targets, bucket_of, is_key, is_large, read_unacked
from aioretryq.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.brokers.redis_bindings import Bindings
    from aioretryq.brokers.redis_keys import Keys
    from aioretryq.brokers.redis_session import RedisSession
    from aioretryq.message import Delivery

logger = logging.getLogger("aioretryq.broker.redis")

CHUNK = 100
"""Messages that are held in memory at once."""

LOOK_FOR_CELERYS = 60.0
"""Longest time in seconds between two looks for messages of dead Celery workers."""


class Recovery:
    """Puts messages back; see `Broker.requeue` and `Broker.recover`."""

    def __init__(
        self, session: RedisSession, keys: Keys, bindings: Bindings, *, lease: float, visibility_timeout: float
    ) -> None:
        self._session = session
        self._keys = keys
        self._lease = lease
        self._celerys = CelerysMessages(session, keys, bindings, visibility_timeout)
        self._refused = False

    async def requeue(self, deliveries: Sequence[Delivery]) -> None:
        held = [(d.tag, d.queue, bucket_of(d.priority), after_interruption(d)) for d in deliveries]
        await self._restore(held, ended_only=False)

    async def recover(self, *, limit: int, living: Sequence[str] = ()) -> int:
        """`living` are members of `Keys.workers`."""
        keys = [self._keys.leases, self._keys.sweep, self._keys.workers]
        tags: list[bytes] | None = await self._session.run("sweep", keys, [self._lease, limit, *living])
        if tags is None:
            return 0  # this sweep is late, or one was a moment ago
        recovered = 0
        # From the youngest to the oldest, for each chunk goes in front of the one before.
        for end in range(len(tags), 0, -CHUNK):
            recovered += await self._recover(tags[max(0, end - CHUNK) : end])
        return recovered + await self._celerys.recover(limit=limit - len(tags))

    async def _recover(self, tags: list[bytes]) -> int:
        client = self._session.client
        with self._session.errors():
            values: Any = await client.hmget(self._keys.unacked, tags)
        held, free = [], []
        for tag, value in zip(tags, values, strict=True):
            try:
                found = None if value is None else await self._read(tag, value)
            except BrokerError as error:
                self._complain(tag, error)  # it stays under its lease, for one of us who may
                continue
            except ValueError:
                found = None
                logger.warning("unreadable entry %r in %s is left there", tag, self._keys.unacked)
            if found is None:
                free.append(tag)  # finished, restored by a Celery worker, or no entry of ours: nothing to put back
            elif found[3] == ELSEWHERE and is_large(found[0]):
                await self._drop(found[0])
            else:
                held.append((*found[:3], after_crash(found[3])))
        if free:
            with self._session.errors():
                await client.zrem(self._keys.leases, *free)
        return await self._restore(held, ended_only=True)

    async def _read(self, tag: bytes, value: bytes) -> tuple[str, str, int, bytes] | None:
        """As `read_unacked`, also of a large message whose lease was not renewed yet: then it is under its own key.

        None if it was finished meanwhile; without the message (see ELSEWHERE) if that is gone.
        """
        name, queue, bucket, body = read_unacked(tag, value)
        if not is_large(name) or body != ELSEWHERE:
            return name, queue, bucket, body
        client: Any = self._session.client
        with self._session.errors():
            apart: bytes | None = await client.lindex(self._keys.large(name), 0)
            if apart is not None:
                return name, queue, bucket, apart
            again: bytes | None = await client.hget(self._keys.unacked, tag)  # renewed or finished just now?
        return None if again is None else read_unacked(tag, again)

    async def _drop(self, tag: str) -> None:
        """The entry of a message that is gone; nobody could ever run it."""
        keys = [*self._keys.held, self._keys.sweep]
        if await self._session.run("restore", keys, [self._lease, tag, 0, b""]):
            text = "the message %s is lost: %s was evicted or deleted. Set maxmemory-policy to noeviction"
            logger.error(text, tag, self._keys.large(tag))

    def _complain(self, tag: bytes, error: BrokerError) -> None:
        """Once, not with each sweep: there may be many."""
        if not self._refused:
            self._refused = True
            logger.warning("message %r of a worker that is gone cannot be put back: %s", tag, error)

    async def _restore(self, held: Sequence[tuple[str, str, int, bytes]], *, ended_only: bool) -> int:
        if not held:
            return 0
        targets, args = Targets(self._keys), []
        for tag, queue, bucket, body in reversed(held):
            args += [tag, targets.number(self._keys.bucket(queue, bucket)), body]
        keys = [*self._keys.held, self._keys.sweep, *targets.numbers]
        count: int = await self._session.run("restore", keys, [self._lease if ended_only else "", *args])
        return count


class CelerysMessages:
    """What Celery workers took and neither finished nor gave back.

    They do not renew: a message counts as abandoned once its entry is older than the visibility timeout, as it
    does for them. What has a lease of ours is not theirs.
    """

    def __init__(self, session: RedisSession, keys: Keys, bindings: Bindings, visibility_timeout: float) -> None:
        self._session = session
        self._keys = keys
        self._bindings = bindings
        self._timeout = visibility_timeout
        self._next_look = 0.0
        self._unreadable: set[bytes] = set()

    async def recover(self, *, limit: int) -> int:
        """Nothing most of the time: only every now and then it looks."""
        now = time.monotonic()
        if limit <= 0 or now < self._next_look:
            return 0
        self._next_look = now + min(LOOK_FOR_CELERYS, self._timeout / 10)
        unreadable: set[bytes] = set()
        recovered = offset = 0
        while recovered < limit and (tags := await self._old(offset, limit - recovered)):
            restored = 0
            for end in range(len(tags), 0, -CHUNK):
                restored += await self._recover(tags[max(0, end - CHUNK) : end], unreadable)
            recovered += restored
            offset += len(tags) - restored  # what could not be put back must not hide what comes after it
        self._warn(unreadable)
        return recovered

    async def _old(self, offset: int, limit: int) -> list[bytes]:
        client = self._session.client
        with self._session.errors():
            seconds, _ = await client.time()
            tags: Any = await client.zrangebyscore(
                self._keys.index, "-inf", seconds - self._timeout, start=offset, num=limit
            )
        return list(tags)

    async def _recover(self, tags: list[Any], unreadable: set[bytes]) -> int:
        client = self._session.client
        with self._session.errors():
            leases: Any = await client.zmscore(self._keys.leases, tags)
            free = [tag for tag, lease in zip(tags, leases, strict=True) if lease is None]
            values: Any = await client.hmget(self._keys.unacked, free) if free else []
        targets, args = Targets(self._keys), []
        for tag, value in zip(reversed(free), reversed(values), strict=True):
            if value is None:
                continue  # acknowledged or restored meanwhile
            try:
                message, exchange, routing_key, priority = read_celerys(value)
            except ValueError:
                unreadable.add(tag)
                continue
            queues = await self._queues(exchange, routing_key)
            lists = [targets.number(self._keys.bucket(queue, bucket_of(priority))) for queue in queues]
            args += [tag, after_crash(message), len(lists), *lists]
        if not args:
            return 0
        keys = [*self._keys.held, *targets.numbers]
        count, refused = await self._session.run("abandoned", keys, [self._timeout, *args])
        if refused:
            logger.warning("%d messages that no Celery worker finished are for keys that are no queues", refused)
        return int(count)

    async def _queues(self, exchange: str, routing_key: str) -> list[str]:
        """Where kombu would put the message back: every queue that it was for."""
        if not exchange:
            return [routing_key]
        return routing.targets(await self._bindings.bound(exchange), routing_key) or [routing_key]

    def _warn(self, unreadable: set[bytes]) -> None:
        if new := unreadable - self._unreadable:
            logger.warning(
                "%d entries in %s that no Celery worker finished are unreadable and left there, such as %r",
                len(new),
                self._keys.unacked,
                min(new),
            )
        self._unreadable = unreadable


def read_celerys(value: bytes) -> tuple[bytes, str, str, int]:
    """(message, exchange, routing key, priority) of an entry that a Celery worker made; ValueError for others."""
    text = value.decode()
    start = text.find("{")
    if start < 0 or text[:start].strip() != "[":
        raise ValueError("no list that begins with a message")
    try:
        message, end = json.JSONDecoder().raw_decode(text, start)
        rest = json.loads("[null" + text[end:])
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if len(rest) != 3 or not isinstance(rest[2], str) or not rest[2]:
        raise ValueError("no exchange and routing key after the message")
    if not is_key(f"{rest[1] or ''}{rest[2]}"):
        raise ValueError("an exchange or routing key that is no text")
    # The text is cut out, not written anew: nothing of the message is changed but what marks it.
    return text[start:end].encode(), str(rest[1] or ""), rest[2], _priority(message)


def _priority(message: dict[str, Any]) -> int:
    properties = message.get("properties")
    try:
        return int(properties["priority"]) if isinstance(properties, dict) else 0
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0
