"""Dead letters in Redis: a hash of the entries, and their ids in a sorted set that is paged as a list of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq.brokers.redis_keys import Targets
from aioretryq.brokers.redis_strange import Strange, read_texts
from aioretryq.drivers.redis import flags
from aioretryq.message import DeadEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.brokers.redis_answers import Answers
    from aioretryq.brokers.redis_keys import Keys
    from aioretryq.brokers.redis_session import RedisSession
    from aioretryq.message import Outgoing

CHUNK = 1000
"""Entries that one script deletes: everybody else waits meanwhile."""


class DeadLetters:
    """See `Broker`."""

    def __init__(self, session: RedisSession, keys: Keys, answers: Answers) -> None:
        self._session = session
        self._keys = keys
        self._answers = answers
        self._strange = Strange()

    async def bury(self, entries: Sequence[DeadEntry]) -> None:
        if entries:
            args = [part for entry in entries for part in (entry.id, entry.content)]
            await self._session.run("bury", self._keys.dead, args)

    async def page(self, *, after: str, limit: int) -> list[DeadEntry]:
        page: list[DeadEntry] = []
        start = b"(" + after.encode() if after else b"-"
        # What is no entry must not make the page look like the last one.
        while (wanted := limit - len(page)) > 0:
            ids, entries = await self._read(start, wanted)
            page += entries
            if len(ids) < wanted:
                break
            start = b"(" + ids[-1]
        return page

    async def _read(self, start: bytes, limit: int) -> tuple[list[bytes], list[DeadEntry]]:
        client = self._session.client
        entries, index = self._keys.dead
        with self._session.errors():
            ids: Any = await client.zrangebylex(index, start, b"+", start=0, num=limit)
            contents: Any = await client.hmget(entries, ids) if ids else []
        names, strange = read_texts(ids)
        self._strange.complain(index, strange)
        found = dict(zip(ids, contents, strict=True))
        return ids, [DeadEntry(name, found[name.encode()]) for name in names if found[name.encode()] is not None]

    async def content(self, entry_id: str) -> bytes | None:
        client = self._session.client
        with self._session.errors():
            found: Any = await client.hget(self._keys.dead[0], entry_id)
        return None if found is None else bytes(found)

    async def count(self) -> int:
        client = self._session.client
        with self._session.errors():
            return int(await client.zcard(self._keys.dead[1]))

    async def exhume(self, taken: Sequence[tuple[str, Outgoing | None]]) -> list[bool]:
        if not taken:
            return []
        targets, args = Targets(self._keys), []
        for entry_id, message in taken:
            args += [entry_id, *((0, "", "") if message is None else targets.encode(message))]
        await self._session.declare(message.queue for _, message in taken if message is not None)
        keys = [*self._keys.dead, self._keys.finished, *targets.numbers]
        with self._answers.batch("exhume", *(entry_id for entry_id, _ in taken)) as batch:
            done = await self._session.run("exhume", keys, [targets.kinds, *batch, *args])
        return flags(done)

    async def trim(self, *, keep: int, before: str) -> int:
        total = count = await self._trim(keep, before)
        while count == CHUNK:
            count = await self._trim(keep, before)
            total += count
        return total

    async def _trim(self, keep: int, before: str) -> int:
        count: int = await self._session.run("trim_dead", self._keys.dead, [keep, before, CHUNK])
        return count
