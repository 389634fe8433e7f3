"""`aioretryq unpark` as it is typed, where no server is needed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from test_cli import aioretryq

from aioretryq.brokers.sqlite import SQLiteBroker
from contracts.broker_world import message


def park(path: Path, queues: list[str]) -> None:
    async def send() -> None:
        async with SQLiteBroker(str(path)) as broker:
            await broker.send([message("x", queue, due=time.time() + 600) for queue in queues])

    asyncio.run(send())


def test_how_many_of_which_queue(tmp_path: Path) -> None:
    park(tmp_path / "q.sqlite3", ["a", "b", "b", "c"])
    url = f"sqlite:///{tmp_path}/q.sqlite3"
    done = aioretryq("unpark", "--url", url, "-Q", "a,b")
    assert done.returncode == 0
    assert [line.split() for line in done.stdout.splitlines()] == [
        "1 messages are back in queue a".split(),
        "2 messages are back in queue b".split(),
    ]
    assert aioretryq("unpark", AIORETRYQ_URL=url).stdout.split()[-1] == "c"
    assert "Nothing is parked" in aioretryq("unpark", "--url", url).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "memory://"], "memory:// exists in one process only"),
        (["--url", "sqlite:////no/such/q.sqlite3"], "There is no file"),
        (["nowhere:queue"], "There is no module 'nowhere'"),
    ],
)
def test_mistakes(arguments: list[str], said: str) -> None:
    done = aioretryq("unpark", *arguments)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
