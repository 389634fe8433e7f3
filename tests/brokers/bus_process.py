"""A process of its own on an SQLite file: `python bus_process.py PATH` answers what is published to `questions`."""

from __future__ import annotations

import asyncio
import sys

from aioretryq.brokers.sqlite import SQLiteBroker
from aioretryq.message import Broadcast


async def main(path: str) -> None:
    async with SQLiteBroker(path) as broker, broker.bus().listen("questions") as listener:
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        while True:
            for question in await listener.receive():
                await broker.bus().answer(Broadcast("answers", question.routing_key, question.body.upper()), ttl=10)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
