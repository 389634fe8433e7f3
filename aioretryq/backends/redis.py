"""The Redis result backend: Celery's keys, documents and announcements, so that either side reads the other's."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from math import ceil
from typing import TYPE_CHECKING, Any, Self, TypeVar

from redis.exceptions import ResponseError

from aioretryq import states
from aioretryq.backends.redis_chords import RedisChords
from aioretryq.drivers.redis import DRIVER_ERRORS, RedisServer, close, load_scripts
from aioretryq.errors import BackendError, BackendUnavailable, NotOpenError
from aioretryq.protocol.stored import status_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from types import TracebackType

    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

    from aioretryq.config import Settings
    from aioretryq.errors import AioretryqError
    from aioretryq.message import ChordClaim, ChordOpening, ChordPart, StoredResult

T = TypeVar("T")

CHUNK = 500
"""Ids in one command: long enough to be fast, short enough not to hold up the server's other clients."""


class RedisBackend:
    """Results in Redis, as Celery keeps them."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._server = RedisServer(url, settings, BackendUnavailable, BackendError)
        self.display_url = self._server.display_url
        self._prefix = key_prefix(str(settings.result_backend_transport_options.get("global_keyprefix", "")))
        ordered = bool(settings.result_backend_transport_options.get("result_chord_ordered", True))
        self._chords = RedisChords(f"{self._prefix}celery-taskset-meta-", ordered=ordered)
        self._connect_within = settings.broker_connection_timeout
        self._answer_within = settings.answer_within
        self._client: Redis | None = None
        self._scripts: dict[str, AsyncScript] = {}
        self._listeners: set[RedisListener] = set()

    @classmethod
    def from_url(cls, url: str, settings: Settings) -> Self:
        return cls(url, settings)

    async def __aenter__(self) -> Self:
        client = self._server.client("backend")
        try:
            await self._server.check(client)
        except BaseException:
            await close(client)
            raise
        self._client = client
        self._scripts = load_scripts(
            client, "aioretryq.backends", "store", "count_parts", "hold_chords", "close_chords"
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        for listener in tuple(self._listeners):
            await listener.close()
        if client is not None:
            await close(client)

    async def store(self, results: Sequence[StoredResult]) -> list[bool]:
        self._checked()
        stored: list[bool] = []
        for chunk in _chunks(results):
            stored += await self._store(chunk)
        return stored

    async def _store(self, results: Sequence[StoredResult]) -> list[bool]:
        """The script tells states in JSON only: what it cannot read is judged here, and it checks that this is still
        what is stored."""
        answers: dict[int, bytes] = {}
        open_values = dict.fromkeys(range(len(results)), "")
        while open_values:
            numbers = list(open_values)
            reply = await self._try_to_store([results[number] for number in numbers], list(open_values.values()))
            answers.update(zip(numbers, (reply[i : i + 1] for i in range(len(numbers))), strict=True))
            asked = [number for number in numbers if answers[number] == b"2"]
            open_values = await self._judge(results, asked) if asked else {}
        return [answers[number] == b"1" for number in range(len(results))]

    async def _try_to_store(self, results: Sequence[StoredResult], judged: Sequence[str]) -> bytes:
        args: list[Any] = []
        for result, value in zip(results, judged, strict=True):
            life = "" if result.ttl is None else max(1, ceil(result.ttl * 1000))
            args += [life, result.document, value, int(states.stays(states.REVOKED, result.state))]
        with self._server.errors():
            reply: bytes = await self._scripts["store"]([self._key(result.task_id) for result in results], args)
        return reply

    async def _judge(self, results: Sequence[StoredResult], numbers: Sequence[int]) -> dict[int, str]:
        """Those whose stored values may be replaced, with the values' SHA-1."""
        values = await self.fetch([results[number].task_id for number in numbers])
        return {
            number: hashlib.sha1(value or b"", usedforsecurity=False).hexdigest()
            for number, value in zip(numbers, values, strict=True)
            if value is None or not states.stays(status_of(value), results[number].state)
        }

    async def fetch(self, task_ids: Sequence[str]) -> list[bytes | None]:
        client = self._checked()
        documents: list[Any] = []
        for chunk in _chunks(task_ids):
            with self._server.errors():
                documents += await client.mget([self._key(task_id) for task_id in chunk])
        return documents

    async def forget(self, task_ids: Sequence[str]) -> None:
        client = self._checked()
        for chunk in _chunks(task_ids):
            with self._server.errors():
                await client.delete(*(self._key(task_id) for task_id in chunk))

    async def save_group(self, group_id: str, document: bytes, ttl: float | None) -> None:
        client, key = self._checked(), self._group_key(group_id)
        with self._server.errors():
            async with client.pipeline(transaction=True) as commands:
                commands.set(key, document, px=None if ttl is None else max(1, ceil(ttl * 1000)))
                commands.publish(key, document)  # as Celery does
                await commands.execute()

    async def restore_group(self, group_id: str) -> bytes | None:
        client = self._checked()
        with self._server.errors():
            found: Any = await client.get(self._group_key(group_id))
        return found if isinstance(found, bytes) else None

    async def delete_group(self, group_id: str) -> None:
        client = self._checked()
        with self._server.errors():
            await client.delete(self._group_key(group_id))

    async def open_chords(self, openings: Sequence[ChordOpening]) -> None:
        with self._server.errors():
            await self._chords.open(self._checked(), openings)

    async def count_parts(self, parts: Sequence[ChordPart]) -> list[bool]:
        self._checked()
        claimed: list[bool] = []
        for chunk in _chunks(parts):
            with self._server.errors():
                claimed += await self._chords.count(self._scripts["count_parts"], chunk)
        return claimed

    async def chord_parts(self, group_id: str) -> list[bytes]:
        with self._server.errors():
            return await self._chords.parts(self._checked(), group_id)

    async def hold_chords(self, claims: Sequence[ChordClaim], hold: float) -> list[bool]:
        self._checked()
        with self._server.errors():
            return await self._chords.hold(self._scripts["hold_chords"], claims, hold)

    async def close_chords(self, claims: Sequence[ChordClaim]) -> None:
        self._checked()
        with self._server.errors():
            await self._chords.close(self._scripts["close_chords"], claims)

    async def cleanup(self) -> int:
        return 0  # the server deletes what has expired

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[RedisListener]:
        self._checked()
        listener = RedisListener(self._server, self._key(""), self._answer_within)
        self._listeners.add(listener)
        try:
            await listener.open(self._connect_within)
            yield listener
        finally:
            self._listeners.discard(listener)
            await listener.close()

    def _checked(self) -> Redis:
        if self._client is None:
            raise NotOpenError(f"The result backend {self.display_url} is not open; use it inside `async with`.")
        return self._client

    def _key(self, task_id: str) -> str:
        return f"{self._prefix}celery-task-meta-{task_id}"

    def _group_key(self, group_id: str) -> str:
        return f"{self._prefix}celery-taskset-meta-{group_id}"


class RedisListener:
    """One connection in pub/sub mode.

    Not redis-py's PubSub: that connects and subscribes again by itself when the connection is lost, and what
    was announced in between is lost without a word.
    """

    def __init__(self, server: RedisServer, key_prefix: str, answer_within: float) -> None:
        self._server = server
        self._connection: Any = server.connection("results")  # untyped in redis-py
        self._key_prefix = key_prefix
        self._answer_within = answer_within
        self._wanted: set[str] = set()
        # Confirmations come in the order of the commands: for each how many are missing, and who waits.
        self._unconfirmed: deque[tuple[list[int], asyncio.Future[None]]] = deque()
        self._sending = asyncio.Lock()
        self._heard: list[tuple[str, bytes]] = []
        self._asked = False  # by a PING that is not answered yet
        self._failure: AioretryqError | None = None

    async def open(self, within: float) -> None:
        with self._server.errors():
            async with asyncio.timeout(within):
                await self._connection.connect()

    async def close(self) -> None:
        await self._fail(BackendUnavailable(f"The listener on {self._server.display_url} is closed; open a new one."))

    async def subscribe(self, task_ids: Sequence[str]) -> None:
        wanted = list(dict.fromkeys(task_ids))
        self._wanted.update(wanted)
        try:
            # No deadline of its own: who reads finds out that nobody answers any more.
            await asyncio.gather(*[await self._ask_for(chunk) for chunk in _chunks(wanted)])
        except BackendError:
            self._wanted.difference_update(wanted)
            raise

    async def _ask_for(self, task_ids: Sequence[str]) -> asyncio.Future[None]:
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        confirmed.add_done_callback(_seen)
        async with self._sending:
            self._unconfirmed.append(([len(task_ids)], confirmed))
            await self._send("SUBSCRIBE", *self._channels(task_ids))
        return confirmed

    async def unsubscribe(self, task_ids: Sequence[str]) -> None:
        # Not confirmed: what is still announced until the server has read this is dropped here.
        unwanted = [task_id for task_id in dict.fromkeys(task_ids) if task_id in self._wanted]
        self._wanted.difference_update(unwanted)
        async with self._sending:
            for chunk in _chunks(unwanted):
                await self._send("UNSUBSCRIBE", *self._channels(chunk))

    async def receive(self) -> list[tuple[str, bytes]]:
        while not self._heard:
            reply = await self._read(self._answer_within)
            if reply is None:
                reply = await self._break_silence()
            while reply is not None:
                self._take(reply)
                # Zero seconds: all that has arrived already is one batch.
                reply = await self._read(0) if len(self._heard) < CHUNK else None
        heard, self._heard = self._heard, []  # kept until here, for receive may be cancelled while it reads on
        return heard

    async def _break_silence(self) -> Any:
        """Nothing was announced: is the server still there? A connection may be dead without a word."""
        if not self._asked:
            self._asked = True
            try:
                async with asyncio.timeout(self._answer_within), self._sending:
                    await self._send("PING")
            except TimeoutError as error:  # the other side reads nothing, and the send buffer is full
                raise await self._fail(self._server.translate(error)) from error
            return None
        # A late event loop sees the deadline before the reply.
        reply = await self._read(0)
        if reply is None:
            raise await self._fail(self._server.translate(TimeoutError("no reply to a PING")))
        return reply

    def _take(self, reply: list[Any]) -> None:
        if len(reply) != 3:
            return  # a PONG has done its work by coming
        kind, channel, content = reply
        if kind == b"message":
            task_id = channel.decode().removeprefix(self._key_prefix)
            if task_id in self._wanted:
                self._heard.append((task_id, content))
        elif kind == b"subscribe" and self._unconfirmed:
            missing, confirmed = self._unconfirmed[0]
            missing[0] -= 1
            if not missing[0]:
                self._unconfirmed.popleft()
                if not confirmed.done():
                    confirmed.set_result(None)
        elif kind == b"refused":
            _, confirmed = self._unconfirmed.popleft()
            if not confirmed.done():
                confirmed.set_exception(content)

    async def _read(self, timeout: float) -> list[Any] | None:
        """What the server says; None if that is nothing for so long."""
        if self._failure is not None:
            raise self._failure
        try:
            # Being cancelled here costs nothing: what was read in part is read on the next time.
            reply: list[Any] | None = await self._connection.read_response(timeout=timeout, disconnect_on_error=False)
        except DRIVER_ERRORS as error:
            failure = self._server.translate(error)
            if not (isinstance(error, ResponseError) and isinstance(failure, BackendError) and self._unconfirmed):
                raise await self._fail(failure) from error
            # Not the end of the connection: the oldest command without an answer asked for what is not allowed.
            failure.__cause__ = error
            reply = [b"refused", None, failure]
        if reply is not None:
            self._asked = False
        return reply

    async def _send(self, *command: str) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            await self._connection.send_command(*command)
        except DRIVER_ERRORS as error:
            raise await self._fail(self._server.translate(error)) from error
        except asyncio.CancelledError:
            # Only with a full send buffer. Half a command may be on its way: this connection is of no more use.
            await self._fail(BackendUnavailable(f"A command to {self._server.display_url} was broken off."))
            raise

    def _channels(self, task_ids: Sequence[str]) -> list[str]:
        return [self._key_prefix + task_id for task_id in task_ids]

    async def _fail(self, failure: AioretryqError) -> AioretryqError:
        """The first failure stays: whoever still reads or waits for a confirmation gets it too."""
        self._failure = failure = self._failure or failure
        while self._unconfirmed:
            _, confirmed = self._unconfirmed.popleft()
            if not confirmed.done():
                confirmed.set_exception(failure)
        # Without waiting for the other side: closing must be quick, also when the server is gone.
        with contextlib.suppress(*DRIVER_ERRORS):
            await self._connection.disconnect(nowait=True)
        return failure


def key_prefix(prefix: str) -> str:
    """`global_keyprefix` as Celery's backends read it: set off with `_` unless it ends in a separator."""
    return prefix if not prefix or prefix.endswith((":", "_", "-", ".")) else f"{prefix}_"


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _seen(confirmed: asyncio.Future[None]) -> None:
    """When sending fails nobody is left to wait for the confirmation; its error is the same and needs no notice."""
    if not confirmed.cancelled():
        confirmed.exception()
