"""Waiting for Redis lists to be filled, without taking anything out of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from aioretryq.drivers.redis import close
from aioretryq.errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioretryq.drivers.redis import RedisServer

BLOCK = 5
"""Seconds one blocking read lasts. Nothing depends on it but how soon an abandoned watch ends."""

_MANY = 10_000  # connections: one for each watched key, opened when it is first watched


class ListWatch:
    """Wakes those who wait when one of their lists holds a message.

    `BLMOVE key key RIGHT RIGHT` blocks until the list is not empty and then moves its last element to where
    it is: nothing is taken, so a lost reply, a cancelled wait and several waiters are all harmless. Redis
    blocks on one key per connection this way, so every watched key has a connection and a task of its own.
    They stay when another key ends the wait: breaking off a blocking read costs its connection. A task makes
    one blocking read after the other only while somebody waits for its key, and ends once the list is filled.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._client = server.client("wait", connections=_MANY, block=BLOCK)
        self._tasks: dict[str, asyncio.Task[BrokerUnavailable | BrokerError | None]] = {}
        self._wanted: Counter[str] = Counter()
        self._bell = asyncio.Event()

    async def wait(self, keys: Iterable[str], seconds: float) -> None:
        """Return when one of the lists holds something, when `ring` is called, or after `seconds`."""
        bell, keys = self._bell, set(keys)
        self._wanted.update(keys)
        for key in [key for key, task in self._tasks.items() if task.done() and not self._wanted[key]]:
            del self._tasks[key]
        try:
            for key in keys:
                # A watch that has ended is news of the past; a new one answers at once if there is something.
                if key not in self._tasks or self._tasks[key].done():
                    self._tasks[key] = asyncio.create_task(self._watch(key), name=f"aioretryq wait {key}")
            async with asyncio.timeout(seconds):
                await bell.wait()
        except TimeoutError:
            return
        finally:
            self._wanted -= Counter(keys)
        for key in keys:
            task = self._tasks[key]
            if task.done() and not task.cancelled() and (error := task.result()):
                raise error

    def ring(self) -> None:
        """End every wait that goes on now."""
        self._bell.set()
        self._bell = asyncio.Event()

    async def close(self) -> None:
        self.ring()
        # Cancelled while it is connecting, a read may swallow that and block: cancel until it is over.
        while pending := [task for task in self._tasks.values() if not task.done()]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=0.1)
        await close(self._client)

    async def _watch(self, key: str) -> BrokerUnavailable | BrokerError | None:
        """The error is returned, not raised: with nobody waiting any more there is nobody to catch it."""
        failure = None
        try:
            while self._wanted[key]:
                with self._server.errors():
                    if await self._client.blmove(key, key, BLOCK, "RIGHT", "RIGHT") is not None:
                        break
        except (BrokerUnavailable, BrokerError) as error:
            failure = error
        self.ring()
        return failure
