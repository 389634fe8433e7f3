"""A server that fails often, and in the same way each time: part of examples.demo."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

SLOW = 5.0
"""Seconds that a slow answer takes: longer than any client waits."""


class FlakyServer:
    """POST /orders/{number}: half of the requests go well, the others are refused, hung up on, or kept waiting."""

    def __init__(self, seed: int = 7) -> None:
        self.seed = seed
        self.url = ""
        self.answers: Counter[str] = Counter()
        self._attempts: Counter[str] = Counter()

    def mood(self, number: str) -> str:
        """How the next request for this order goes: chance, but the same chance in every run."""
        self._attempts[number] += 1
        chance = random.Random(f"{self.seed}/{number}/{self._attempts[number]}")
        return chance.choices(["ok", "busy", "dropped", "slow"], weights=[4, 2, 1, 1])[0]

    async def place_order(self, request: web.Request) -> web.StreamResponse:
        number = request.match_info["number"]
        mood = self.mood(number)
        self.answers[mood] += 1
        if mood == "busy":
            return web.Response(status=503, headers={"Retry-After": "1"})
        if mood == "dropped" and request.transport is not None:
            request.transport.abort()
        if mood == "slow":
            await asyncio.sleep(SLOW)
        return web.json_response({"order": int(number)})

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FlakyServer"]:
        """Listen on a free port of this machine."""
        app = web.Application()
        app.router.add_post("/orders/{number}", self.place_order)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()
