"""What Redis commands cost this process: redis-py against our own connection, alternating in one run.

    python -m benchmarks.wire [--redis URL] [--uvloop] [--rounds N]

Shown is the processor time of this process alone, the least of all rounds, for other programs disturb; and the median
time until the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import uvloop

from aioretryq.config import Settings
from aioretryq.drivers.redis import RedisServer, close
from aioretryq.drivers.redis_line import Line, Script
from aioretryq.errors import BrokerError, BrokerUnavailable
from benchmarks.server import database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from redis.asyncio import Redis

    Work = Callable[[], Awaitable[object]]

FLAGS = "return string.rep('1', 100)"
"""Stands for a script that does a batch and answers a flag for each: what counts here is the client's part."""

ROUND = 0.3
"""Seconds of work that are measured at once."""


class Both:
    """The same work done by redis-py and by our own connection."""

    def __init__(self, line: Line, client: Redis) -> None:
        self._line, self._client = line, client
        self._digest = hashlib.sha1(FLAGS.encode(), usedforsecurity=False).hexdigest()
        self._script = Script(line, FLAGS)

    def works(self) -> dict[str, tuple[int, Work, Work]]:
        """Name: (how many commands or messages, redis-py's way, our way)."""
        line, client, many, big = self._line, self._client, range(100), b"x" * 100_000
        one, batch = ["tag"], ["tag" * 20, b"x" * 300] * 100
        gets = [("GET", "key")] * 100
        return {
            "GET": (1, lambda: client.get("key"), lambda: line.call("GET", "key")),
            "EVALSHA": (1, partial(self._evalsha, one), lambda: self._script(["key"], one)),
            "EVALSHA, 100 results of 300 B": (100, partial(self._evalsha, batch), lambda: self._script(["k"], batch)),
            "100 GET, a pipeline": (100, self._pipeline, lambda: line.call_all(gets)),
            "100 GET, 100 callers": (
                *(100, lambda: asyncio.gather(*(client.get("key") for _ in many))),
                lambda: asyncio.gather(*(line.call("GET", "key") for _ in many)),
            ),
            "SET of 100 kB": (1, lambda: client.set("big", big), lambda: line.call("SET", "big", big)),
            "GET of 100 kB": (1, lambda: client.get("big"), lambda: line.call("GET", "big")),
        }

    async def _evalsha(self, args: list[Any]) -> object:
        return await self._client.evalsha(self._digest, 1, "key", *args)

    async def _pipeline(self) -> object:
        async with self._client.pipeline(transaction=False) as pipe:
            for _ in range(100):
                pipe.get("key")
            return await pipe.execute()


@asynccontextmanager
async def both(url: str) -> AsyncIterator[Both]:
    server = RedisServer(url, Settings(), BrokerUnavailable, BrokerError)
    line, client = Line(server, "wire"), server.client("client")
    try:
        await line.call("SET", "key", "value")
        await line.call("SCRIPT", "LOAD", FLAGS)
        yield Both(line, client)
    finally:
        await line.close()
        await close(client)


async def measure(work: Work) -> tuple[float, float]:
    """Processor time and median waiting time of one call, in microseconds."""
    waits = []
    await work()
    until, busy = time.perf_counter() + ROUND, time.process_time()
    while (started := time.perf_counter()) < until:
        await work()
        waits.append(time.perf_counter() - started)
    return (time.process_time() - busy) / len(waits) * 1e6, statistics.median(waits) * 1e6


async def compare(url: str, rounds: int) -> None:
    line = "{:<32}{:>12}{:>8}{:>8}{:>14}{:>8}"
    click.echo(line.format("", "redis-py us", "ours", "ratio", "p50: redis-py", "ours"))
    async with both(url) as contenders:
        for name, (count, *ways) in contenders.works().items():
            runs = [[await measure(way) for way in ways] for _ in range(rounds)]
            theirs, ours = (min(cpu for cpu, _ in run) / count for run in zip(*runs, strict=True))
            waits = (f"{min(wait for _, wait in run):.0f}" for run in zip(*runs, strict=True))
            click.echo(line.format(name, f"{theirs:.1f}", f"{ours:.1f}", f"{theirs / ours:.1f}", *waits))


@click.command()
@click.option("--redis", metavar="URL", help="An empty database.  [default: a private server]")
@click.option("--uvloop/--asyncio", "fast", default=True, show_default=True, help="The event loop.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
def main(redis: str | None, fast: bool, rounds: int) -> None:
    """Compare what commands cost; processor time is per command, or per result where one command carries many."""
    with (
        database(redis) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop if fast else None) as runner,
    ):
        runner.run(compare(server.url, rounds))


if __name__ == "__main__":
    main()
