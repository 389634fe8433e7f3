"""A result backend that works, but for what a test takes away from it."""

from __future__ import annotations

import asyncio
import contextlib

from aioretryq.backends.memory import MemoryBackend
from aioretryq.errors import BackendUnavailable


class TroubledBackend:
    """Memory underneath. Fails `failures` times, can lose its listeners, and can be deaf to announcements."""

    display_url = "troubled://"

    def __init__(self, failures=0, error=None):
        self.memory = MemoryBackend()
        self.failures = failures
        self.error = error or BackendUnavailable("gone")
        self.calls = 0
        self.fetched = []
        self.asked_for = []
        self.deaf = False
        self.listeners = []
        self.before_subscribe = None
        self.tells_what_is_there = False

    async def __aenter__(self):
        await self.memory.__aenter__()
        return self

    async def __aexit__(self, *exc_info):
        await self.memory.__aexit__(*exc_info)

    def _fail(self):
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise self.error

    async def store(self, results):
        self._fail()
        return await self.memory.store(results)

    async def fetch(self, task_ids):
        self.fetched.append(list(task_ids))
        self._fail()
        return await self.memory.fetch(task_ids)

    async def forget(self, task_ids):
        await self.memory.forget(task_ids)

    async def cleanup(self):
        return 0

    @contextlib.asynccontextmanager
    async def listen(self):
        async with self.memory.listen() as listener:
            troubled = TroubledListener(self, listener)
            self.listeners.append(troubled)
            yield troubled

    def lose_listener(self):
        self.listeners[-1].lost.set()


class TroubledListener:
    def __init__(self, backend, listener):
        self.backend = backend
        self.listener = listener
        self.lost = asyncio.Event()
        self.subscribed = set()

    async def subscribe(self, task_ids):
        if self.backend.before_subscribe is not None:
            await self.backend.before_subscribe(task_ids)
        self.backend.asked_for.append(sorted(task_ids))
        self.subscribed.update(task_ids)
        await self.listener.subscribe(task_ids)
        if self.backend.tells_what_is_there:
            return any(await self.backend.memory.fetch(task_ids))
        return None

    async def unsubscribe(self, task_ids):
        self.subscribed.difference_update(task_ids)
        await self.listener.unsubscribe(task_ids)

    async def receive(self):
        receiving = asyncio.ensure_future(self.listener.receive())
        losing = asyncio.ensure_future(self.lost.wait())
        try:
            while True:
                await asyncio.wait([receiving, losing], return_when=asyncio.FIRST_COMPLETED)
                if self.lost.is_set():
                    raise BackendUnavailable("the connection was lost")
                if not self.backend.deaf:
                    return receiving.result()
                receiving = asyncio.ensure_future(self.listener.receive())
        finally:
            receiving.cancel()
            losing.cancel()
