"""The cases of the matrix: each is run by every client against every worker, and asserts what both promise."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from matrix_clients import PATIENCE, CeleryClient, OurClient
from matrix_parts import OutOfStock

Client = CeleryClient | OurClient
Case = Callable[["Cell"], Awaitable[None]]
CASES: dict[str, Case] = {}


@dataclass(frozen=True)
class Cell:
    """One client, and the worker (`celery`, `ours`, or both on one queue) that serves its queue."""

    client: Client
    worker: str
    server: redis.Redis

    async def seen(self, key: str, count: int = 1) -> list[str]:
        """What tasks have noted under a key, once there is that much."""
        async with asyncio.timeout(PATIENCE):
            while self.server.llen(f"seen:{key}") < count:
                await asyncio.sleep(0.01)
        return [line.decode() for line in self.server.lrange(f"seen:{key}", 0, -1)]

    async def becomes(self, task_id: str, *states: str) -> str:
        async with asyncio.timeout(PATIENCE):
            while (state := await self.client.state(task_id)) not in states:
                await asyncio.sleep(0.02)
        return state


def case(function: Case) -> Case:
    CASES[function.__name__.replace("_", " ")] = function
    return function


def key() -> str:
    return uuid.uuid4().hex


@case
async def plain(cell: Cell) -> None:
    assert await cell.client.value(await cell.client.send("m.add", 2, 3)) == 5
    if cell.worker != "both":
        assert await cell.client.value(await cell.client.send("m.who")) == cell.worker


@case
async def retry(cell: Cell) -> None:
    task_id = await cell.client.send("m.flaky", 2)
    assert await cell.client.value(task_id) == 2


@case
async def eta(cell: Cell) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.6)
    noted = key()
    task_id = await cell.client.send("m.seen", noted, eta=due)
    await cell.client.value(task_id)
    assert datetime.now(UTC) >= due


@case
async def countdown(cell: Cell) -> None:
    assert await cell.client.value(await cell.client.send("m.add", 1, 1, countdown=0.3)) == 2


@case
async def expires(cell: Cell) -> None:
    noted = key()
    gone = await cell.client.send("m.seen", noted, expires=datetime.now(UTC) - timedelta(seconds=1))
    kept = await cell.client.send("m.seen", noted, expires=60)
    assert await cell.becomes(gone, "REVOKED") == "REVOKED"
    assert await cell.client.value(kept) == noted
    assert await cell.seen(noted) == [""]


@case
async def priority(cell: Cell) -> None:
    sent = [await cell.client.send("m.echo", number, priority=number) for number in (9, 6, 3, 0)]
    assert [await cell.client.value(task_id) for task_id in sent] == [9, 6, 3, 0]


@case
async def error(cell: Cell) -> None:
    with pytest.raises(ValueError, match="broken") as caught:
        await cell.client.value(await cell.client.send("m.broken"))
    assert caught.value.args == ("broken", 42)


@case
async def custom_exception(cell: Cell) -> None:
    with pytest.raises(OutOfStock) as caught:
        await cell.client.value(await cell.client.send("m.fail", "tea", 3))
    assert (caught.value.article, caught.value.missing) == ("tea", 3)


@case
async def link(cell: Cell) -> None:
    noted = key()
    await cell.client.send("m.add", 2, 3, link=cell.client.s("m.seen", noted) | {"immutable": True})
    assert await cell.seen(noted) == [""]
    noted = key()
    await cell.client.send("m.echo", noted, link=cell.client.s("m.seen", "and more"))
    assert await cell.seen(noted) == ["and more"]


@case
async def errback(cell: Cell) -> None:
    """As a task, with the id of the one that failed."""
    failed = await cell.client.send("m.broken", link_error=cell.client.s("m.told"))
    assert await cell.seen(failed) == [f"told {failed}"]


@case
async def errback_called(cell: Cell) -> None:
    """The new style: with request, exception and traceback, where the task failed."""
    failed = await cell.client.send("m.broken", link_error=cell.client.s("m.told_why"))
    assert await cell.seen(failed) == [f"told why {failed} ValueError"]


@case
async def group(cell: Cell) -> None:
    ids = await cell.client.group(*[cell.client.s("m.add", n, n) for n in range(5)])
    assert [await cell.client.value(task_id) for task_id in ids] == [0, 2, 4, 6, 8]


@case
async def chain(cell: Cell) -> None:
    steps = [cell.client.s("m.add", 1, 2), cell.client.s("m.add", 10), cell.client.s("m.add", 100)]
    assert await cell.client.value(await cell.client.chain(*steps)) == 113


@case
async def chain_with_a_retry(cell: Cell) -> None:
    steps = [cell.client.s("m.flaky", 1), cell.client.s("m.add", 10)]
    assert await cell.client.value(await cell.client.chain(*steps)) == 11


@case
async def chain_that_fails(cell: Cell) -> None:
    steps = [cell.client.s("m.add", 1, 2), cell.client.s("m.broken"), cell.client.s("m.add", 1)]
    with pytest.raises(ValueError, match="broken"):
        await cell.client.value(await cell.client.chain(*steps))


@case
async def chord(cell: Cell) -> None:
    header = [cell.client.s("m.add", n, n) for n in range(4)]
    assert await cell.client.value(await cell.client.chord(header, cell.client.s("m.total"))) == 12


@case
async def chord_that_fails(cell: Cell) -> None:
    header = [cell.client.s("m.add", 1, 1), cell.client.s("m.broken")]
    body = await cell.client.chord(header, cell.client.s("m.total"))
    with pytest.raises(Exception, match="broken") as caught:
        await cell.client.value(body)
    assert type(caught.value).__name__ == "ChordError"


@case
async def revoke(cell: Cell) -> None:
    noted = key()
    task_id = await cell.client.send("m.seen", noted, countdown=1)
    await cell.client.revoke(task_id)
    assert await cell.becomes(task_id, "REVOKED") == "REVOKED"
    after = await cell.client.send("m.seen", noted, "later", countdown=1.2)
    await cell.client.value(after)
    assert await cell.seen(noted) == ["later"]


@case
async def ignore_result(cell: Cell) -> None:
    noted = key()
    task_id = await cell.client.send("m.seen", noted, ignore_result=True)
    await cell.seen(noted)
    await cell.client.value(await cell.client.send("m.add", 1, 1))
    assert await cell.client.state(task_id) == "PENDING"


def serializer(name: str, value: Any) -> None:
    async def run(cell: Cell) -> None:
        task_id = await cell.client.send("m.echo", value, serializer=name)
        assert await cell.client.value(task_id) == value

    CASES[f"serializer {name}"] = run


def compression(name: str) -> None:
    async def run(cell: Cell) -> None:
        task_id = await cell.client.send("m.echo", "x" * 5000, compression=name)
        assert await cell.client.value(task_id) == "x" * 5000

    CASES[f"compression {name}"] = run


for _name in ("json", "yaml", "msgpack", "pickle"):
    serializer(_name, {"text": "tëxt", "numbers": [1, 2.5, None, True]})
for _name in ("zlib", "bzip2", "zstd", "brotli"):
    compression(_name)
