"""Broadcasts on Redis, on kombu's channels: Celery's workers, clients and monitors hear ours, and we theirs.

Answers are no broadcasts there: they lie in a list until they are taken, and the table of bindings of their
exchange says in which.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
from redis.exceptions import ResponseError

from aioretryq.brokers.ears import Ear
from aioretryq.brokers.redis_channels import is_pattern
from aioretryq.errors import AioretryqError, BrokerError, BrokerUnavailable, NotOpenError
from aioretryq.message import Binding, Broadcast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aioretryq.brokers.redis_bindings import Bindings
    from aioretryq.brokers.redis_channels import Channels
    from aioretryq.brokers.redis_keys import Keys
    from aioretryq.brokers.redis_session import RedisSession
    from aioretryq.drivers.redis_pubsub import PubSubConnection

logger = logging.getLogger("aioretryq.broker.redis")

CHUNK = 200
"""Messages in one round trip."""

_CONFIRMATIONS = (b"subscribe", b"unsubscribe", b"psubscribe", b"punsubscribe")

CLOSED = "The broker was closed; listen again once it is open."

BOUND_AGAIN = 10.0
"""Seconds after which an inbox is bound again: the server may have lost its data."""


class RedisBus:
    """All listeners share one connection, which is opened for the first one and closed with the broker."""

    def __init__(self, session: RedisSession, keys: Keys, bindings: Bindings, channels: Channels) -> None:
        self._session = session
        self._keys = keys
        self._bindings = bindings
        self._channels = channels
        self._wire: _Wire | None = None
        self._inboxes: dict[asyncio.Task[None], Ear] = {}
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        for emptying, ear in self._inboxes.items():
            ear.fail(BrokerUnavailable(CLOSED))
            emptying.cancel()
        if self._inboxes:
            await asyncio.wait(self._inboxes)
        wire, self._wire = self._wire, None
        self._opening = asyncio.Lock()  # the next opening may be on another event loop
        if wire is not None:
            await wire.close()

    async def publish(self, messages: Sequence[Broadcast]) -> list[int]:
        client = self._session.client
        reached: list[int] = []
        for start in range(0, len(messages), CHUNK):
            with self._session.errors():
                async with client.pipeline(transaction=False) as pipe:
                    for message in messages[start : start + CHUNK]:
                        pipe.publish(self._channels.channel(message.exchange, message.routing_key), message.body)
                    reached += await pipe.execute()
        return reached

    @asynccontextmanager
    async def listen(self, exchange: str, pattern: str = "#") -> AsyncIterator[Ear]:
        wire = await self._connected()
        ear = Ear(exchange, pattern)
        globs = self._channels.globs(exchange, pattern)
        try:
            for glob in globs:
                await wire.add(glob, ear)
            yield ear
        finally:
            # Waited for, so that from then on nobody counts this listener.
            leaving = [left for glob in globs if (left := wire.remove(glob, ear)) is not None]
            if leaving:
                await asyncio.wait(leaving)

    async def _connected(self) -> _Wire:
        async with self._opening:
            if self._wire is None or self._wire.failure is not None:
                connection = await self._session.pubsub()
                self._wire = _Wire(connection, self._channels)
            return self._wire

    async def answer(self, message: Broadcast, *, ttl: float) -> int:
        bound = await self._bindings.bound(message.exchange)
        queues = sorted({found.queue for found in bound if found.routing_key == message.routing_key})
        if not queues:
            return 0
        with self._session.errors():
            async with self._session.client.pipeline(transaction=True) as pipe:
                for queue in queues:
                    key = self._keys.bucket(queue, 0)
                    pipe.lpush(key, message.body)
                    pipe.pexpire(key, round(ttl * 1000))
                replies: list[Any] = await pipe.execute(raise_on_error=False)
        for queue, reply in zip(queues, replies[::2], strict=True):
            if isinstance(reply, ResponseError):  # a key that is no list
                logger.warning("no answer can be put into %r: %s", queue, reply)
        return sum(not isinstance(reply, ResponseError) for reply in replies[::2])

    @asynccontextmanager
    async def inbox(self, exchange: str, routing_key: str, *, ttl: float) -> AsyncIterator[Ear]:
        queue = f"{routing_key}.{exchange}"
        binding = Binding(exchange, "direct", routing_key, queue, max(ttl, 3 * BOUND_AGAIN))
        ear = Ear(exchange, routing_key)
        await self._bindings.bind([binding])
        try:
            emptying = asyncio.create_task(self._empty(binding, ear), name=f"aioretryq inbox {queue}")
            self._inboxes[emptying] = ear
            try:
                yield ear
            finally:
                del self._inboxes[emptying]
                emptying.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([emptying])
        finally:
            # Where the server is gone, what is left there ends by itself.
            with anyio.CancelScope(shield=True), suppress(BrokerUnavailable, BrokerError, NotOpenError):
                await self._bindings.unbind([binding])
                await self._delete(self._keys.bucket(queue, 0))

    async def _delete(self, key: str) -> None:
        with self._session.errors():
            await self._session.client.delete(key)

    async def _empty(self, binding: Binding, ear: Ear) -> None:
        """Move what arrives into the ear, until cancelled; a task, so that nobody cancels it between list and ear."""
        key = self._keys.bucket(binding.queue, 0)
        try:
            while True:
                await self._session.watch.wait([key], {}, BOUND_AGAIN)
                with self._session.errors():
                    bodies: Any = await self._session.client.rpop(key, CHUNK)
                for body in bodies or ():
                    ear.put(Broadcast(binding.exchange, binding.routing_key, body))
                if not bodies:
                    await self._bindings.bind([binding])
        except (BrokerUnavailable, BrokerError) as error:
            ear.fail(error)


class _Wire:
    """The connection, with a reader and a writer of its own: a listener that is cancelled must break nothing off."""

    def __init__(self, connection: PubSubConnection, channels: Channels) -> None:
        self.failure: AioretryqError | None = None
        self._connection = connection
        self._channels = channels
        self._ears: dict[str, set[Ear]] = {}
        self._subscribed: dict[str, asyncio.Future[None]] = {}
        self._unanswered: deque[asyncio.Future[None]] = deque()
        self._commands: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._task = asyncio.create_task(self._serve(), name="aioretryq bus")

    async def add(self, glob: str, ear: Ear) -> None:
        """Returns once the server has confirmed."""
        if self.failure is not None:
            raise self.failure
        self._ears.setdefault(glob, set()).add(ear)
        if glob not in self._subscribed:
            self._subscribed[glob] = self._ask(f"{_way(glob)}SUBSCRIBE", glob)
        await asyncio.shield(self._subscribed[glob])

    def remove(self, glob: str, ear: Ear) -> asyncio.Future[None] | None:
        """Done when the server has confirmed that nobody listens any more; None if others do."""
        ears = self._ears.get(glob, set())
        ears.discard(ear)
        if ears or self._ears.pop(glob, None) is None:
            return None
        del self._subscribed[glob]
        return self._ask(f"{_way(glob)}UNSUBSCRIBE", glob) if self.failure is None else None

    def _ask(self, command: str, glob: str) -> asyncio.Future[None]:
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answered.add_done_callback(_seen)
        self._unanswered.append(answered)
        self._commands.put_nowait((command, glob))
        return answered

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _serve(self) -> None:
        closed: AioretryqError = BrokerUnavailable(CLOSED)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write())
                group.create_task(self._read())
        except* (BrokerUnavailable, BrokerError) as errors:
            closed = _first(errors)
        finally:
            self._fail(closed)
            await self._connection.close()

    def _fail(self, error: AioretryqError) -> None:
        self.failure = error
        for ear in {ear for ears in self._ears.values() for ear in ears}:
            ear.fail(error)
        for waiting in self._unanswered:
            if not waiting.done():
                waiting.set_exception(error)

    async def _write(self) -> None:
        while True:
            await self._connection.send(*await self._commands.get())

    async def _read(self) -> None:
        while True:
            reply = await self._connection.read()
            if isinstance(reply, AioretryqError):
                self._refused(reply)
            elif reply is not None:
                self._take(reply)

    def _refused(self, error: AioretryqError) -> None:
        """Not the end of the connection: the oldest command without an answer asked for what is not allowed."""
        if not self._unanswered:
            raise error
        waiting = self._unanswered.popleft()
        if not waiting.done():
            waiting.set_exception(error)

    def _take(self, reply: list[Any]) -> None:
        kind = reply[0]
        if kind == b"pmessage":
            _, glob, channel, body = reply
            self._hear(glob.decode(errors="replace"), channel.decode(errors="replace"), body)
        elif kind == b"message":
            _, channel, body = reply
            self._hear(channel.decode(errors="replace"), channel.decode(errors="replace"), body)
        elif kind in _CONFIRMATIONS and self._unanswered:
            confirmed = self._unanswered.popleft()
            if not confirmed.done():
                confirmed.set_result(None)

    def _hear(self, glob: str, channel: str, body: bytes) -> None:
        for ear in self._ears.get(glob, ()):
            routing_key = self._channels.routing_key(channel, ear.exchange)
            if not self._channels.patterns or ear.wants(ear.exchange, routing_key):
                ear.put(Broadcast(ear.exchange, routing_key, body))


def _way(glob: str) -> str:
    """P for a pattern. As long as nobody listens to any, the server can tell whether somebody hears a result: see
    store_result.lua."""
    return "P" if is_pattern(glob) else ""


def _seen(answered: asyncio.Future[None]) -> None:
    """Those who waited may be gone; then its error needs no notice."""
    if not answered.cancelled():
        answered.exception()


def _first(group: BaseExceptionGroup[Any]) -> AioretryqError:
    found: Any = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, AioretryqError)
    return found
