"""The Redis broker: kombu's layout of queues and unacked messages, so that Celery workers may share them.

What a crash can interrupt is one server-side script: there is no moment at which a message is in no key.
Beside kombu's keys stand our own (`aioretryq.*`): ends of leases, parked messages, tags sent, revocations and
dead letters.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import ResponseError

from aioretryq.brokers.redis_watch import ListWatch
from aioretryq.drivers.redis import RedisServer, close, flags, load_scripts
from aioretryq.errors import BrokerError, BrokerUnavailable, ConfigError, NotOpenError
from aioretryq.message import Claim, Delivery
from aioretryq.protocol.envelope import is_redelivered, mark_redelivered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline
    from redis.commands.core import AsyncScript

    from aioretryq.config import Settings
    from aioretryq.message import Finish, Outgoing

logger = logging.getLogger("aioretryq.broker.redis")

SEP = "\x06\x16"
BUCKETS = (0, 3, 6, 9)

LOOK = 1.0
"""Longest wait in seconds before a claim should look for itself: see `RedisBroker.wait`."""

CHUNK = 100
"""Messages that `recover` holds in memory at once."""

VISIBILITY_TIMEOUT = 3600.0
"""kombu's default."""

_SCRIPTS = ("claim", "send", "finish", "extend", "restore", "revoke")


def bucket_of(priority: int) -> int:
    """kombu has four lists for ten priorities: the largest step that is not above the priority."""
    return min(max(priority, 0), 9) // 3 * 3


class Keys:
    """The names of all keys."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.held = [prefix + name for name in ("unacked", "unacked_index", "aioretryq.leases")]
        self.leases = self.held[2]
        self.unacked = self.held[0]
        self.sent = prefix + "aioretryq.sent"
        self.revocations = [prefix + "aioretryq.revocations", prefix + "aioretryq.revoked"]
        self.dead = [prefix + "aioretryq.dead", prefix + "aioretryq.dead.index"]

    def bucket(self, queue: str, bucket: int) -> str:
        return f"{self._prefix}{queue}{SEP}{bucket}" if bucket else self._prefix + queue

    def buckets(self, queue: str) -> list[str]:
        return [self.bucket(queue, bucket) for bucket in BUCKETS]

    def schedule(self, queue: str) -> str:
        return f"{self._prefix}aioretryq.schedule.{queue}"

    def bindings(self, queue: str) -> list[str]:
        return [f"{self._prefix}_kombu.binding{which}.{queue}" for which in ("", "_permanent")]


@dataclass(slots=True)
class _Targets:
    """Messages as the scripts take them: their keys are numbered, each with its kind, `l`ist or `z`set."""

    keys: Keys
    numbers: dict[str, int] = field(default_factory=dict)
    kinds: str = ""

    def encode(self, message: Outgoing) -> tuple[int, float | str, bytes]:
        bucket = bucket_of(message.priority)
        if message.due is None:
            return self.number(self.keys.bucket(message.queue, bucket), "l"), "", message.body
        tag = message.tag.encode()
        # The tag keeps equal bodies apart, and its length tells where the body begins.
        member = b"%s%d:%d:%s%s" % (b"+" if message.offered else b"", bucket, len(tag), tag, message.body)
        return self.number(self.keys.schedule(message.queue), "z"), message.due, member

    def number(self, key: str, kind: str) -> int:
        if key not in self.numbers:
            self.kinds += kind
        return self.numbers.setdefault(key, len(self.numbers) + 1)


class RedisBroker:
    """Messages in Redis, as kombu keeps them: a delivery's priority is that of its list, 0, 3, 6 or 9."""

    def __init__(self, url: str, settings: Settings) -> None:
        options = settings.broker_transport_options
        self._server = RedisServer(url, settings, BrokerUnavailable, BrokerError)
        self.display_url = self._server.display_url
        self._keys = Keys(str(options.get("global_keyprefix", "")))
        self._lease = settings.lease
        # kombu peers restore what stands in unacked_index for longer than their visibility timeout. Where
        # that is shorter than the lease, the score is set ahead: they must not take what we still hold.
        self._lead = max(0.0, settings.lease - _visibility_timeout(options))
        self._client: Redis | None = None
        self._scripts: dict[str, AsyncScript] = {}
        self._watch: ListWatch | None = None
        # Longer than 64 bytes on purpose: up to that Redis keeps a small zset as one flat list and searches it
        # from its beginning, which makes each ZADD of a lease six times as expensive.
        self._tag_prefix = f"aioretryq:{uuid.uuid4().hex}{uuid.uuid4().hex}:"
        self._last_tag = 0
        self._last_revocation = b"0"
        self._declared: set[str] = set()
        self._lower: set[str] = set()
        self._due: dict[str, float] = {}

    @classmethod
    def from_url(cls, url: str, settings: Settings) -> Self:
        return cls(url, settings)

    async def __aenter__(self) -> Self:
        client = self._server.client("broker")
        try:
            await self._server.check(client)
        except BaseException:
            await close(client)
            raise
        self._client = client
        self._scripts = load_scripts(client, "aioretryq.brokers", *_SCRIPTS)
        self._watch = ListWatch(self._server)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        client, watch = self._client, self._watch
        self._client = self._watch = None
        if watch is not None:
            await watch.close()
        if client is not None:
            await close(client)

    # -- messages in and out

    async def send(self, messages: Sequence[Outgoing]) -> None:
        if not messages:
            return
        targets, args = _Targets(self._keys), []
        for message in messages:
            args += [message.tag, *targets.encode(message)]
        await self._declare(message.queue for message in messages)
        await self._run("send", [self._keys.sent, *targets.numbers], [targets.kinds, *args])
        self._note(messages)

    async def claim(self, queues: Sequence[str], *, limit: int) -> Claim:
        queues = list(dict.fromkeys(queues)) if limit > 0 else []
        await self._declare(queues)
        lists = [self._keys.bucket(queue, bucket) for bucket in BUCKETS for queue in queues]
        keys = [*self._keys.held, *self._keys.revocations, *map(self._keys.schedule, queues), *lists]
        first, self._last_tag = self._last_tag, self._last_tag + max(limit, 0)
        args = [limit, self._lease, self._lead, self._tag_prefix, first, self._last_revocation]
        due, revoked, runs, bodies = await self._run("claim", keys, [*args, *map(_unacked_suffix, queues)])
        now = time.monotonic()
        self._due.update({q: now + float(text or "inf") for q, text in zip(queues, due, strict=True)})
        if revoked:
            self._last_revocation = revoked[-1]
        return Claim(self._deliveries(queues, first, runs, bodies), [task_id.decode() for task_id in revoked[::2]])

    def _deliveries(self, queues: Sequence[str], first: int, runs: list[int], bodies: list[bytes]) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for number, bucket, count in zip(*[iter(runs)] * 3, strict=True):
            queue = queues[number - 1]
            if bucket:
                self._lower.add(self._keys.bucket(queue, bucket))
            for body in bodies[len(deliveries) : len(deliveries) + count]:
                tag = f"{self._tag_prefix}{first + len(deliveries) + 1:012}:{bucket}"
                deliveries.append(Delivery(queue, body, tag, bucket, is_redelivered(body)))
        return deliveries

    async def wait(self, queues: Sequence[str], *, timeout: float) -> None:
        # Watched is priority 0 of each queue, and a lower priority once a message of it has been seen: each
        # watch takes a connection, and hardly anyone uses them all. What else may arrive unheard (the first
        # message of a lower priority, one that another process parked, a revocation) is found by
        # returning early, every LOOK seconds.
        _, watch = self._checked()
        now = time.monotonic()
        seconds = min([timeout, LOOK, *(self._due[queue] - now for queue in queues if queue in self._due)])
        if seconds <= 0:
            return
        keys = [key for queue in queues for key in self._keys.buckets(queue)]
        tops = {self._keys.bucket(queue, 0) for queue in queues}
        await watch.wait((key for key in keys if key in tops or key in self._lower), seconds)

    async def finish(self, finishes: Sequence[Finish]) -> list[bool]:
        if not finishes:
            return []
        targets, args = _Targets(self._keys), []
        for finish in finishes:
            records = [targets.encode(message) for message in finish.send]
            if finish.dead is not None:
                records.append((0, "", finish.dead))
            args += [finish.delivery.tag, len(records), *chain.from_iterable(records)]
        await self._declare(message.queue for finish in finishes for message in finish.send)
        keys = [*self._keys.held, *self._keys.dead, *targets.numbers]
        done = await self._run("finish", keys, [targets.kinds, *args])
        self._note(message for finish in finishes for message in finish.send)
        return flags(done)

    async def requeue(self, deliveries: Sequence[Delivery]) -> None:
        await self._restore([(d.tag, d.queue, bucket_of(d.priority), d.body) for d in deliveries], ended_only=False)

    # -- leases

    async def extend(self, deliveries: Sequence[Delivery]) -> list[bool]:
        if not deliveries:
            return []
        tags = [delivery.tag for delivery in deliveries]
        extended = await self._run("extend", self._keys.held, [self._lease, self._lead, *tags])
        return flags(extended)

    async def recover(self, *, limit: int = 1000) -> int:
        client, _ = self._checked()
        with self._server.errors():
            seconds, micros = await client.time()
            now = seconds + micros / 1e6
            tags: Any = await client.zrangebyscore(self._keys.leases, "-inf", now, start=0, num=limit)
        recovered = 0
        # From the youngest to the oldest, for each chunk goes in front of the one before.
        for end in range(len(tags), 0, -CHUNK):
            recovered += await self._recover(tags[max(0, end - CHUNK) : end])
        return recovered

    async def _recover(self, tags: list[bytes]) -> int:
        client, _ = self._checked()
        with self._server.errors():
            values: Any = await client.hmget(self._keys.unacked, tags)
        held, lost = [], []
        for tag, value in zip(tags, values, strict=True):
            try:
                held.append(_read_unacked(tag, value))
            except ValueError:
                # Finished, restored by a Celery worker, or no entry of ours: nothing we could put back.
                lost.append(tag)
                if value is not None:
                    logger.warning("unreadable entry %r in %s is left there", tag, self._keys.unacked)
        if lost:
            with self._server.errors():
                await client.zrem(self._keys.leases, *lost)
        return await self._restore(held, ended_only=True)

    async def _restore(self, held: Sequence[tuple[str, str, int, bytes]], *, ended_only: bool) -> int:
        if not held:
            return 0
        targets, args = _Targets(self._keys), []
        for tag, queue, bucket, body in reversed(held):
            args += [tag, targets.number(self._keys.bucket(queue, bucket), "l"), mark_redelivered(body)]
        keys = [*self._keys.held, *targets.numbers]
        count: int = await self._run("restore", keys, ["1" if ended_only else "0", *args])
        return count

    # -- the rest

    async def revoke(self, task_ids: Sequence[str], *, ttl: float) -> None:
        if task_ids:
            await self._run("revoke", self._keys.revocations, [ttl, *task_ids])

    async def depth(self, queues: Sequence[str]) -> dict[str, int]:
        client, _ = self._checked()
        if not queues:
            return {}
        with self._server.errors():
            async with client.pipeline(transaction=False) as pipe:
                for queue in queues:
                    self._count(pipe, queue)
                counts = await pipe.execute()
        return {queue: sum(counts[5 * n : 5 * n + 5]) for n, queue in enumerate(queues)}

    async def purge(self, queue: str) -> int:
        client, _ = self._checked()
        with self._server.errors():
            async with client.pipeline(transaction=True) as pipe:
                self._count(pipe, queue)
                pipe.delete(*self._keys.buckets(queue), self._keys.schedule(queue))
                return sum((await pipe.execute())[:5])

    def _count(self, pipe: Pipeline, queue: str) -> None:
        for key in self._keys.buckets(queue):
            pipe.llen(key)
        pipe.zcard(self._keys.schedule(queue))

    async def dead(self, *, limit: int = 1000) -> list[bytes]:
        client, _ = self._checked()
        entries, index = self._keys.dead
        with self._server.errors():
            tags: Any = await client.zrange(index, 0, limit - 1) if limit > 0 else []
            found: Any = await client.hmget(entries, tags) if tags else []
        return [entry for entry in found if entry is not None]

    # -- how it is done

    def _checked(self) -> tuple[Redis, ListWatch]:
        if self._client is None or self._watch is None:
            raise NotOpenError(f"The broker {self.display_url} is not open; use it inside `async with`.")
        return self._client, self._watch

    async def _run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        self._checked()
        try:
            with self._server.errors():
                return await self._scripts[script](keys, args)
        except BrokerUnavailable:
            # The server that comes back may have lost everything: write the bindings again.
            self._declared.clear()
            raise

    async def _declare(self, queues: Iterable[str]) -> None:
        """Bind queues as kombu does when it declares them: tools and other clients of kombu list the bindings."""
        new = set(queues) - self._declared
        if not new:
            return
        client, _ = self._checked()
        async with client.pipeline(transaction=True) as pipe:
            for queue in new:
                for key in self._keys.bindings(queue):
                    # Without the permanent set, kombu 5.7 may sweep the binding away.
                    pipe.sadd(key, f"{queue}{SEP}{SEP}{queue}")
            try:
                with self._server.errors():
                    await pipe.execute()
            except (BrokerUnavailable, BrokerError) as error:
                if not isinstance(error.__cause__, ResponseError):
                    raise
                # The server is there but full, or does not let us: messages matter more than bindings.
                logger.debug("bindings are not written: %s", error)
                return
        self._declared |= new

    def _note(self, sent: Iterable[Outgoing]) -> None:
        """Tell the waiters of this process what the watches cannot hear."""
        now, wall = time.monotonic(), time.time()
        for message in sent:
            if message.queue not in self._due:
                continue  # nobody here claims from it
            if message.due is not None:
                due = self._due[message.queue] = min(self._due[message.queue], now + message.due - wall)
                news = due < now + LOOK
            else:
                key = self._keys.bucket(message.queue, bucket_of(message.priority))
                news = key != self._keys.bucket(message.queue, 0) and key not in self._lower
                self._lower.add(key)
            if news and self._watch is not None:
                self._watch.ring()


def _visibility_timeout(options: dict[str, Any]) -> float:
    value = options.get("visibility_timeout", VISIBILITY_TIMEOUT)
    if not isinstance(value, int | float) or value <= 0:
        raise ConfigError(f"broker_transport_options['visibility_timeout'] must be seconds, not {value!r}.")
    return float(value)


def _unacked_suffix(queue: str) -> str:
    """What follows the message in kombu's unacked: `[<message>,"<exchange>","<routing key>"]`."""
    return f',"",{json.dumps(queue)}]'


def _read_unacked(tag: bytes, value: bytes | None) -> tuple[str, str, int, bytes]:
    """(tag, queue, bucket, message) of an entry of ours; ValueError for everything else."""
    if not value or not value.startswith(b"[") or not value.endswith(b"]"):
        raise ValueError(value)
    # The last one is ours, whatever the message holds: within the queue's name quotes are escaped.
    at = value.rindex(b',"",')
    queue = json.loads(value[at + 4 : -1])
    prefix, _, bucket = tag.decode().rpartition(":")
    if not isinstance(queue, str) or not prefix.startswith("aioretryq:") or int(bucket) not in BUCKETS:
        raise ValueError(value)
    return tag.decode(), queue, int(bucket), value[1:at]
