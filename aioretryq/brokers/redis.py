"""The Redis broker: kombu's layout of queues and unacked messages, so that Celery workers may share them.

What a crash can interrupt is one server-side script: there is no moment at which a message is in no key.
Beside kombu's keys stand our own (`aioretryq.*`): ends of leases, parked messages, tags sent, revocations,
dead letters, and what is remembered for a while of sweeps and of replies that may be lost.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

from aioretryq.brokers.redis_answers import Answers, ClaimRange
from aioretryq.brokers.redis_bindings import Bindings
from aioretryq.brokers.redis_bus import RedisBus
from aioretryq.brokers.redis_channels import Channels
from aioretryq.brokers.redis_dead import DeadLetters
from aioretryq.brokers.redis_finishing import LARGE, RedisResults, lost_parcel, receipt, script
from aioretryq.brokers.redis_history import history
from aioretryq.brokers.redis_keys import BUCKETS, OUR_TAG, SEP, Keys, tag_of, unacked_suffix
from aioretryq.brokers.redis_parking import Parking
from aioretryq.brokers.redis_recovery import Recovery
from aioretryq.brokers.redis_sending import Sends
from aioretryq.brokers.redis_session import RedisSession
from aioretryq.brokers.redis_strange import Strange, read_texts
from aioretryq.drivers.redis import flags
from aioretryq.errors import BrokerError, BrokerUnavailable, ConfigError
from aioretryq.message import Claim, Delivery

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from redis.asyncio.client import Pipeline

    from aioretryq.brokers.redis_watch import Range
    from aioretryq.config import Settings
    from aioretryq.message import Binding, DeadEntry, Finish, Outgoing

logger = logging.getLogger("aioretryq.broker.redis")

_FINISHED = {ord("0"): False, ord("1"): True, ord("2"): None}

EARLIER: Range = ("-inf", "+inf", 0)
"""Where parked messages lie that are due before the first one that is known: as long as none is known."""

NEVER = sys.maxsize
"""Bytes from which on a result is large: none is."""

VISIBILITY_TIMEOUT = 3600.0
"""kombu's default."""


class RedisBroker:
    """Messages in Redis, as kombu keeps them: a delivery's priority is that of its list, 0, 3, 6 or 9.

    Deliveries and interruptions are counted in the messages themselves: only what is a message in Celery's form
    can be counted. A repeated `purge`, `trim_dead`, `recover` or `unpark` tells what is new since the one whose reply
    was lost.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self._url, self._settings = url, settings
        options = settings.broker_transport_options
        _check_layout(options)
        instance = uuid.uuid4().hex
        self._keys = Keys(str(options.get("global_keyprefix", "")), instance)
        self._session = RedisSession(url, settings, self._keys)
        self.display_url = self._session.display_url
        self._lease = settings.lease
        # kombu peers restore what stands in unacked_index for longer than their visibility timeout. Where
        # that is shorter than the lease, the score is set ahead: they must not take what we still hold.
        visibility_timeout = _visibility_timeout(options)
        self._lead = max(0.0, settings.lease - visibility_timeout)
        self._bindings = Bindings(self._session, self._keys)
        self._recovery = Recovery(
            self._session, self._keys, self._bindings, lease=settings.lease, visibility_timeout=visibility_timeout
        )
        self._parking = Parking(self._session, self._keys)
        self._answers = Answers()
        self._results: RedisResults | None = None
        self._complained = False
        self._sends = Sends(self._keys, instance)
        channels = Channels(options, self._session.database)
        self._bus = RedisBus(self._session, self._keys, self._bindings, channels)
        self._dead = DeadLetters(self._session, self._keys, self._answers)
        # Tags are longer than 64 bytes on purpose: up to that Redis keeps a small zset as one flat list and searches
        # it from its beginning, which makes each ZADD of a lease six times as expensive.
        self._tag_prefix = f"{OUR_TAG}{instance}{uuid.uuid4().hex[:8]}:"
        self._last_tag = 0
        self._unanswered: list[ClaimRange] = []
        self._last_revocation = b"0"
        self._unread = False  # revocations, or messages beyond what one reply holds
        self._strange = Strange()
        self._due: dict[str, float] = {}  # when the first one that is parked is, on the clock of this process
        self._earlier: dict[str, Range] = {}  # where one would lie that is due before it

    @classmethod
    def from_url(cls, url: str, settings: Settings) -> Self:
        return cls(url, settings)

    def twin(self) -> Self:
        return type(self)(self._url, self._settings)

    async def __aenter__(self) -> Self:
        await self._session.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._bus.close()
        await self._session.close()

    # -- messages in and out

    async def send(self, messages: Sequence[Outgoing]) -> None:
        if not messages:
            return
        queues = {message.queue for message in messages}
        if not self._session.declared.issuperset(queues):
            await self._session.declare(queues)
        await self._sends.send(messages, self._session.run)

    async def claim(self, queues: Sequence[str], *, limit: int) -> Claim:
        queues = list(dict.fromkeys(queues)) if limit > 0 else []
        if new := self._session.undeclared(queues):
            await self.depth(new)  # what cannot be a queue is refused before it is bound
            await self._session.declare(new)
        if self._unanswered:
            await self._unclaim()
        lists = [self._keys.bucket(queue, bucket) for bucket in BUCKETS for queue in queues]
        keys = [*self._keys.held, *self._keys.revocations, self._keys.void, *map(self._keys.schedule, queues), *lists]
        first, self._last_tag = self._last_tag, self._last_tag + max(limit, 0)
        args = [limit, self._lease, self._lead, self._tag_prefix, first, self._last_revocation]
        try:
            reply = await self._session.run("claim", keys, [*args, *map(unacked_suffix, queues)])
        except BrokerError:
            raise  # refused, so nothing was taken
        except BaseException:
            self._unanswered.append(ClaimRange(first, self._last_tag, queues))
            raise
        due, revoked, runs, bodies, last, unread = reply
        now = time.monotonic()
        for queue, (seconds, score, strange_before) in zip(queues, due, strict=True):
            self._due[queue] = now + float(seconds or "inf")
            self._earlier[queue] = ("-inf", f"({score.decode()}" if score else "+inf", strange_before)
        self._last_revocation, self._unread = last or self._last_revocation, bool(unread)
        notices, strange = read_texts(revoked)
        self._strange.complain(self._keys.revocations[0], strange)
        return Claim(self._deliveries(queues, first, runs, bodies), notices)

    def _deliveries(self, queues: Sequence[str], first: int, runs: list[int], bodies: list[bytes]) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for number, bucket, count in zip(*[iter(runs)] * 3, strict=True):
            queue = queues[number - 1]
            for body in bodies[len(deliveries) : len(deliveries) + count]:
                tag = tag_of(self._tag_prefix, first + len(deliveries) + 1, bucket, body)
                deliveries.append(Delivery(queue, body, tag, bucket, *history(body)))
        return deliveries

    async def _unclaim(self) -> None:
        """Take back what claims took whose replies were lost, and have those do nothing that are still to come.

        A frozen server carries out what lies in its sockets when it goes on, without anybody who reads the replies.
        """
        claims = sorted(self._unanswered, key=lambda claim: claim.first)
        queues = list(dict.fromkeys(queue for claim in claims for queue in claim.queues))
        keys = [*self._keys.held, self._keys.void, *chain.from_iterable(map(self._keys.buckets, queues))]
        numbers = [number for claim in claims for number in (claim.first, claim.last)]
        args = [self._last_tag, self._tag_prefix, len(claims), *numbers, *map(unacked_suffix, queues)]
        if count := await self._session.run("unclaim", keys, args):
            logger.info("%d messages of claims whose replies were lost are back in their queues", count)
        self._unanswered = [claim for claim in self._unanswered if claim not in claims]

    async def wait(self, queues: Sequence[str], *, timeout: float) -> None:
        # What a claim would find that the last one has not: messages in any list, one that was parked and is due
        # before all others, revocations.
        if self._unread:
            return
        now = time.monotonic()
        seconds = min([timeout, *(self._due[queue] - now for queue in queues if queue in self._due)])
        if seconds <= 0:
            return
        lists = chain.from_iterable(map(self._keys.buckets, queues))
        ranges = {self._keys.schedule(queue): self._earlier.get(queue, EARLIER) for queue in queues}
        ranges[self._keys.revocations[0]] = (f"({self._last_revocation.decode()}", "+inf", 0)
        await self._session.watch.wait(lists, ranges, seconds)

    async def finish(self, finishes: Sequence[Finish]) -> list[bool | None]:
        if not finishes:
            return []
        await self._session.declare(message.queue for finish in finishes for message in finish.send)
        with self._answers.batch(*map(receipt, finishes)) as batch:
            try:
                done = await self._finish(finishes, batch, LARGE)
            except BrokerUnavailable as error:
                if not lost_parcel(error):
                    raise
                done = await self._finish(finishes, batch, NEVER)
        if refusal := done[len(finishes) :]:
            self._complain(refusal.decode(errors="replace"))
        return [_FINISHED[answer] for answer in done[: len(finishes)]]

    async def _finish(self, finishes: Sequence[Finish], batch: Sequence[int], large: int) -> bytes:
        keys, args, ahead = script(self._keys, finishes, batch, self._results, large=large)
        done: bytes = await self._session.run("finish", keys, args, ahead=ahead)
        return done

    def _complain(self, refusal: str) -> None:
        """Once: it would be the same each time."""
        if not self._complained:
            self._complained = True
            text = "%s finishes messages, but lets this user neither announce their results nor clean up: %s. %s"
            logger.warning(text, self.display_url, refusal, "Extend the user's ACL.")

    def joins(self, backend: object) -> bool:
        if not isinstance(backend, RedisResults) or backend.display_url != self.display_url:
            return False
        self._results = backend
        return True

    async def requeue(self, deliveries: Sequence[Delivery]) -> None:
        await self._recovery.requeue(deliveries)

    # -- leases

    async def extend(self, deliveries: Sequence[Delivery]) -> list[bool]:
        if not deliveries:
            return []
        tags = [delivery.tag for delivery in deliveries]
        extended = await self._session.run("extend", self._keys.held, [self._lease, self._lead, *tags])
        return flags(extended)

    async def recover(self, *, limit: int = 1000, worker: str = "", queues: Sequence[str] = ()) -> int:
        living = [f"{worker}{SEP}{queue}" for queue in queues if worker]
        recovered = await self._recovery.recover(limit=limit, living=living)
        await self._bindings.sweep()
        return recovered

    async def leave(self, worker: str, queues: Sequence[str]) -> list[str]:
        args = [self._lease, SEP, worker, *queues]
        return [queues[n - 1] for n in await self._session.run("leave", [self._keys.workers], args)]

    # -- parked messages

    async def parked(self, queues: Sequence[str] | None = None) -> dict[str, int]:
        return await self._parking.count(queues)

    async def unpark(self, queue: str, *, limit: int = 1000) -> int:
        return await self._parking.unpark(queue, limit=limit)

    # -- the rest

    async def revoke(self, notices: Sequence[str], *, ttl: float) -> None:
        if notices:
            await self._session.run("revoke", self._keys.revocations, [ttl, *notices])

    async def depth(self, queues: Sequence[str]) -> dict[str, int]:
        client = self._session.client
        if not queues:
            return {}
        with self._session.errors():
            async with client.pipeline(transaction=False) as pipe:
                for queue in queues:
                    self._count(pipe, queue)
                counts = await pipe.execute()
        return {queue: sum(counts[5 * n : 5 * n + 5]) for n, queue in enumerate(queues)}

    async def purge(self, queue: str) -> int:
        client = self._session.client
        with self._session.errors():
            async with client.pipeline(transaction=True) as pipe:
                self._count(pipe, queue)
                pipe.delete(*self._keys.buckets(queue), self._keys.schedule(queue))
                return sum((await pipe.execute())[:5])

    def _count(self, pipe: Pipeline, queue: str) -> None:
        for key in self._keys.buckets(queue):
            pipe.llen(key)
        pipe.zcard(self._keys.schedule(queue))

    # -- exchanges

    def bus(self) -> RedisBus:
        return self._bus

    async def bind(self, bindings: Sequence[Binding]) -> None:
        await self._bindings.bind(bindings)

    async def unbind(self, bindings: Sequence[Binding]) -> None:
        await self._bindings.unbind(bindings)

    async def bindings(self, exchange: str) -> list[Binding]:
        return await self._bindings.bound(exchange)

    # -- dead letters

    async def bury(self, entries: Sequence[DeadEntry]) -> None:
        await self._dead.bury(entries)

    async def dead(self, *, after: str = "", limit: int = 100) -> list[DeadEntry]:
        return await self._dead.page(after=after, limit=limit)

    async def dead_entry(self, entry_id: str) -> bytes | None:
        return await self._dead.content(entry_id)

    async def dead_count(self) -> int:
        return await self._dead.count()

    async def exhume(self, taken: Sequence[tuple[str, Outgoing | None]]) -> list[bool]:
        return await self._dead.exhume(taken)

    async def trim_dead(self, *, keep: int, before: str) -> int:
        return await self._dead.trim(keep=keep, before=before)


def _visibility_timeout(options: dict[str, Any]) -> float:
    value = options.get("visibility_timeout", VISIBILITY_TIMEOUT)
    if not isinstance(value, int | float) or value <= 0:
        raise ConfigError(f"broker_transport_options['visibility_timeout'] must be seconds, not {value!r}.")
    return float(value)


def _check_layout(options: dict[str, Any]) -> None:
    """Where queues of other priorities lie is the same everywhere, or messages would not be found."""
    for name, here in (("sep", SEP), ("priority_steps", list(BUCKETS))):
        given = options.get(name, here)
        if (list(given) if name == "priority_steps" and isinstance(given, list | tuple | range) else given) != here:
            raise ConfigError(
                f"broker_transport_options[{name!r}] is {here!r} here, kombu's default; remove {given!r}, also from "
                "the Celery workers of these queues."
            )
