"""Chords in Redis, in the keys of Celery 5.7: workers of both kinds count the parts of one header.

With G = `celery-taskset-meta-<group id>`: `G.s` is how many parts return, `G.t` how many were added since, `G.j` what
they returned (a sorted set by index, or a list), `G.d` who was counted already, `G.c` who may send the body, then
"done"; G itself is the tree of the header's results, where a part is a group. In `G.d` our workers also note which of
them will come back to send the body.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from aioretryq.drivers.redis import flags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from aioretryq.drivers.redis_line import Script
    from aioretryq.message import ChordClaim, ChordOpening, ChordPart

DONE = 300
"""Seconds for which a closed chord is not begun anew by a part that comes late."""

PAGE = 1000
"""Parts in one answer: their results may be large, and an answer has a deadline."""


class RedisChords:
    def __init__(self, prefix: str, *, ordered: bool) -> None:
        self._prefix = prefix
        self._ordered = ordered

    def _key(self, group_id: str, kind: str = "") -> str:
        return f"{self._prefix}{group_id}{kind}"

    async def open(self, client: Redis, openings: Sequence[ChordOpening]) -> None:
        if not openings:
            return
        async with client.pipeline(transaction=True) as pipe:
            for opening in openings:
                pipe.delete(self._key(opening.group_id, ".c"))
                if opening.size is not None:
                    pipe.set(self._key(opening.group_id, ".s"), opening.size, ex=_seconds(opening.ttl) or None)
            await pipe.execute()

    async def count(self, script: Script, parts: Sequence[ChordPart]) -> list[bool]:
        keys = [self._key(part.group_id, kind) for part in parts for kind in (".j", ".t", ".s", ".d", "", ".c")]
        args: list[Any] = [int(self._ordered)]
        for part in parts:
            position = "+inf" if part.index is None else part.index
            args += [part.task_id, part.content, position, _seconds(part.ttl)]
            args += [_milliseconds(part.hold), part.token, int(part.returns)]
        return flags(await script(keys, args))

    async def parts(self, client: Redis, group_id: str) -> list[bytes]:
        key = self._key(group_id, ".j")
        found: list[bytes] = []
        while True:
            start, end = len(found), len(found) + PAGE - 1
            read: Any = client.zrange(key, start, end) if self._ordered else client.lrange(key, start, end)
            page: list[bytes] = await read
            found += page
            if len(page) < PAGE:
                return found

    async def hold(self, script: Script, claims: Sequence[ChordClaim], hold: float) -> list[bool]:
        keys = [self._key(claim.group_id, kind) for claim in claims for kind in (".c", ".s")]
        return flags(await script(keys, [_milliseconds(hold), *(claim.token for claim in claims)])) if claims else []

    async def close(self, script: Script, claims: Sequence[ChordClaim]) -> None:
        keys = [self._key(claim.group_id, kind) for claim in claims for kind in (".j", ".t", ".s", ".d", ".c")]
        args: list[Any] = [DONE]
        for claim in claims:
            args += [claim.token, int(claim.failed)]
        if claims:
            await script(keys, args)


def _milliseconds(hold: float) -> int:
    return max(1, ceil(hold * 1000))


def _seconds(ttl: float | None) -> int:
    """0 for ever."""
    return 0 if ttl is None else max(1, ceil(ttl))
