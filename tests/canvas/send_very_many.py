"""A program that sends a chord of very many parts, and says how much memory that took."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aioretryq import TaskQueue
from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import TASK, Node, chord_of, group_of
from aioretryq.workflows.sending import start

if TYPE_CHECKING:
    from collections.abc import Iterator


def resident() -> int:
    status = Path("/proc/self/statm").read_text(encoding="ascii")
    return int(status.split()[1]) * 4096


def calls(count: int) -> Iterator[Node]:
    for number in range(count):
        yield Node(TASK, "w.add", args=(number, 1))


async def main(url: str, count: int) -> None:
    async with TaskQueue(url) as queue:
        await start(
            queue, chord_of(group_of(Members(calls(3000))), Node(TASK, "w.total")), (), {}, {"queue": "other"}
        )
        before = resident()
        result = await start(queue, chord_of(group_of(Members(calls(count))), Node(TASK, "w.total")))
        sys.stdout.write(json.dumps({"grown": resident() - before, "group": result.parent.id}))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
