"""A process of its own on an SQLite file: `send <path> <name> <count>` `claim <path> <name>` or `hold <path> <name>`.

The claiming one prints what it has finished, until it finds a message in the queue of its name. The holding one
prints what it has claimed, and waits to be killed.
"""

from __future__ import annotations

import asyncio
import sys

from aioretryq.brokers.sqlite import SQLiteBroker
from aioretryq.message import Finish, Outgoing


async def send(broker: SQLiteBroker, name: str, count: int) -> None:
    for start in range(0, count, 10):
        names = [f"{name}-{n}" for n in range(start, start + 10)]
        await broker.send([Outgoing("celery", each.encode(), each) for each in names])


async def claim(broker: SQLiteBroker, name: str) -> None:
    while True:
        deliveries = (await broker.claim(["celery", name], limit=20)).deliveries
        finished = await broker.finish([Finish(delivery) for delivery in deliveries])
        assert all(finished)
        for delivery in deliveries:
            if delivery.queue == name:
                return
            sys.stdout.write(delivery.body.decode() + "\n")
        if not deliveries:
            await broker.wait(["celery", name], timeout=60)


async def hold(broker: SQLiteBroker, name: str) -> None:
    for delivery in (await broker.claim(["celery"], limit=20)).deliveries:
        sys.stdout.write(delivery.body.decode() + "\n")
    sys.stdout.flush()
    while True:
        await broker.wait([name], timeout=60)


async def main(role: str, path: str, name: str, count: str = "0") -> None:
    async with SQLiteBroker(path) as broker:
        if role == "send":
            await send(broker, name, int(count))
        else:
            await (claim if role == "claim" else hold)(broker, name)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
