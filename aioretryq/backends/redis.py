"""The Redis result backend: Celery's keys, documents and announcements, so that either side reads the other's."""

from __future__ import annotations

import contextlib
import hashlib
from math import ceil
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aioretryq import states
from aioretryq.backends.redis_chords import SCRIPTS, RedisChords
from aioretryq.backends.redis_listener import RedisListener
from aioretryq.drivers.redis import RedisServer, close
from aioretryq.drivers.redis_line import Line, load_scripts
from aioretryq.errors import BackendError, BackendUnavailable, NotOpenError
from aioretryq.protocol.stored import status_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from types import TracebackType

    from redis.asyncio import Redis

    from aioretryq.config import Settings
    from aioretryq.drivers.redis_line import Script
    from aioretryq.message import ChordAddition, ChordClaim, ChordOpening, ChordPart, OverdueChord, StoredResult

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
        self.chords = RedisChords(self._prefix, ordered=ordered)
        self._connect_within = settings.broker_connection_timeout
        self._answer_within = settings.answer_within
        self._line: Line | None = None
        self._client: Redis | None = None
        self._scripts: dict[str, Script] = {}
        self._listeners: set[RedisListener] = set()

    @classmethod
    def from_url(cls, url: str, settings: Settings) -> Self:
        return cls(url, settings)

    async def __aenter__(self) -> Self:
        line = Line(self._server, "backend")
        try:
            await line.check()
        except BaseException:
            await line.close()
            raise
        self._line, self._client = line, self._server.client("backend")
        self._scripts = load_scripts(line, "aioretryq.backends", "store", *SCRIPTS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        line, client = self._line, self._client
        self._line = self._client = None
        for listener in tuple(self._listeners):
            await listener.close()
        if line is not None:
            await line.close()
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
            args += [life, result.document, value, int(result.yields_to(states.REVOKED))]
        reply: bytes = await self._scripts["store"]([self.key(result.task_id) for result in results], args)
        return reply

    async def _judge(self, results: Sequence[StoredResult], numbers: Sequence[int]) -> dict[int, str]:
        """Those whose stored values may be replaced, with the values' SHA-1."""
        values = await self.fetch([results[number].task_id for number in numbers])
        return {
            number: hashlib.sha1(value or b"", usedforsecurity=False).hexdigest()
            for number, value in zip(numbers, values, strict=True)
            if value is None or not results[number].yields_to(status_of(value))
        }

    async def fetch(self, task_ids: Sequence[str]) -> list[bytes | None]:
        line = self._checked_line()
        documents: list[Any] = []
        for chunk in _chunks(task_ids):
            documents += await line.call("MGET", *[self.key(task_id) for task_id in chunk])
        return documents

    async def forget(self, task_ids: Sequence[str]) -> None:
        client = self._checked()
        for chunk in _chunks(task_ids):
            with self._server.errors():
                await client.delete(*(self.key(task_id) for task_id in chunk))

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
        self._checked()
        for chunk in _chunks(openings):
            await self.chords.open(self._scripts["open_chords"], chunk)

    async def amend_chords(self, openings: Sequence[ChordOpening]) -> list[bool]:
        self._checked()
        amended: list[bool] = []
        for chunk in _chunks(openings):
            amended += await self.chords.open(self._scripts["open_chords"], chunk, amend=True)
        return amended

    async def add_parts(self, additions: Sequence[ChordAddition]) -> None:
        self._checked()
        for chunk in _chunks(additions):
            await self.chords.add(self._scripts["add_parts"], chunk)

    async def overdue_chords(self, patience: float, limit: int) -> list[OverdueChord]:
        self._checked()
        return await self.chords.overdue(self._scripts["overdue_chords"], patience, limit)

    async def count_parts(self, parts: Sequence[ChordPart]) -> list[bool]:
        self._checked()
        claimed: list[bool] = []
        for chunk in _chunks(parts):
            claimed += await self.chords.count(self._scripts["count_parts"], chunk)
        return claimed

    async def chord_parts(self, group_id: str, limit: int | None = None) -> list[bytes]:
        self._checked()
        return await self.chords.parts(self._scripts["read_parts"], group_id, limit)

    async def hold_chords(self, claims: Sequence[ChordClaim], hold: float) -> list[bool | None]:
        self._checked()
        return await self.chords.hold(self._scripts["hold_chords"], claims, hold)

    async def close_chords(self, claims: Sequence[ChordClaim]) -> None:
        self._checked()
        await self.chords.close(self._scripts["close_chords"], claims)

    async def cleanup(self) -> int:
        return 0  # the server deletes what has expired

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[RedisListener]:
        self._checked()
        listener = RedisListener(self._server, self.key(""), self._answer_within)
        self._listeners.add(listener)
        try:
            await listener.open(self._connect_within)
            yield listener
        finally:
            self._listeners.discard(listener)
            await listener.close()

    def _checked(self) -> Redis:
        if self._client is None:
            raise self._not_open()
        return self._client

    def _checked_line(self) -> Line:
        if self._line is None:
            raise self._not_open()
        return self._line

    def _not_open(self) -> NotOpenError:
        return NotOpenError(f"The result backend {self.display_url} is not open; use it inside `async with`.")

    def key(self, task_id: str) -> str:
        """Where the result of a task is, and the channel on which it is announced."""
        return f"{self._prefix}celery-task-meta-{task_id}"

    def _group_key(self, group_id: str) -> str:
        return f"{self._prefix}celery-taskset-meta-{group_id}"


def key_prefix(prefix: str) -> str:
    """`global_keyprefix` as Celery's backends read it: set off with `_` unless it ends in a separator."""
    return prefix if not prefix or prefix.endswith((":", "_", "-", ".")) else f"{prefix}_"


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
