"""Parked messages, which only workers of this kind know of: counted, and made ordinary ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from aioretryq.brokers.parking import as_not_parked
from aioretryq.brokers.redis_keys import Targets, read_parked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.brokers.redis_keys import Keys
    from aioretryq.brokers.redis_session import RedisSession

CHUNK = 100
"""Messages that are held in memory at once, and that keep the server for one moment."""

SCANNED = 1000
"""Keys that the server looks at in one step."""


class Parking:
    def __init__(self, session: RedisSession, keys: Keys) -> None:
        self._session = session
        self._keys = keys

    async def count(self, queues: Sequence[str] | None) -> dict[str, int]:
        names = await self._all() if queues is None else list(queues)
        if not names:
            return {}
        with self._session.errors():
            async with self._session.client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.zcard(self._keys.schedule(name))
                counts = await pipe.execute()
        return dict(zip(names, counts, strict=True))

    async def _all(self) -> list[str]:
        start = self._keys.schedule("")
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", start) + "*"
        with self._session.errors():
            found: Any = self._session.client.scan_iter(match=pattern, count=SCANNED, _type="zset")
            return sorted({key.decode().removeprefix(start) async for key in found})

    async def unpark(self, queue: str, *, limit: int) -> int:
        """The messages are read and sent back: they are written anew without their marks."""
        moved = foreign = 0
        while moved < limit:
            page = await self._page(queue, foreign, min(CHUNK, limit - moved))
            targets, args = Targets(self._keys), []
            for member in page:
                try:
                    bucket, body = read_parked(member)
                except ValueError:
                    foreign += 1  # stays, and must not hide what comes after it
                    continue
                args += [member, targets.number(self._keys.bucket(queue, bucket)), as_not_parked(body)]
            if args:
                moved += await self._session.run("unpark", [self._keys.schedule(queue), *targets.numbers], args)
            elif not page:
                break
        return moved

    async def _page(self, queue: str, start: int, count: int) -> list[bytes]:
        with self._session.errors():
            page: Any = await self._session.client.zrange(self._keys.schedule(queue), start, start + count - 1)
        return list(page)
