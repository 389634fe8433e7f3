"""The bus in an SQLite file: other processes, replaced files, and what it costs when nothing happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
from pathlib import Path

import pytest

from aioretryq.brokers import sqlite_exchanges
from aioretryq.brokers.sqlite import SQLiteBroker
from aioretryq.message import Binding, Broadcast
from contracts.broker_world import bodies, leases_end, take
from contracts.bus_contract import news, receive
from contracts.sqlite_world import SQLiteWorld

HERE = Path(__file__).parent
LAYOUT_2 = HERE.parent / "contracts" / "sqlite_layout_2.sql"


@pytest.fixture
async def world(tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        yield SQLiteWorld(stack, tmp_path)


@contextlib.asynccontextmanager
async def answering(path: str):
    command = [sys.executable, str(HERE / "bus_process.py"), path]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"listening\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_two_processes(world):
    broker = await world.broker()
    async with answering(world.path) as process, broker.bus().inbox("answers", "me", ttl=10) as inbox:
        for n in range(20):
            assert await broker.bus().publish([Broadcast("questions", "me", b"a%d" % n)]) == [1]
            assert [each.body for each in await receive(inbox)] == [b"A%d" % n]
        process.kill()
        await process.wait()
        # It counts as listening for a little while.
        assert await broker.bus().publish([Broadcast("questions", "me", b"a")]) == [1]


async def test_who_has_died_does_not_count_for_long(world, monkeypatch):
    monkeypatch.setattr(sqlite_exchanges, "DEAF", 0.0)
    broker, dead = await world.broker(), await world.broker()
    async with dead.bus().listen("news"):
        assert await broker.bus().publish([news()]) == [0]


async def test_listeners_say_again_that_they_listen(world, monkeypatch):
    broker = await world.broker()
    async with broker.bus().listen("news") as listener:
        until = broker._database.read(lambda c: c.execute("SELECT until FROM ears").fetchone()[0])
        before = await until
        broker._bus._refreshed -= 100
        broker._bus.ring()
        async with asyncio.timeout(10):
            while await broker._database.read(lambda c: c.execute("SELECT until FROM ears").fetchone()[0]) <= before:
                await asyncio.sleep(0.005)
        await broker.bus().publish([message := news()])
        assert await receive(listener) == [message]


async def test_a_file_that_is_replaced(world):
    """Listeners are there again after some seconds: when they say again that they listen."""
    broker, other = await world.broker(), await world.broker()
    async with broker.bus().listen("news") as listener:
        for _ in range(5):
            await other.bus().publish([news()])
        await receive(listener, 5)
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(world.path + suffix)
        broker._bell._announced.clear()  # time for that, too
        broker._bus._refreshed -= 100
        broker._bus.ring()
        async with asyncio.timeout(10):
            while await other.bus().publish([message := news()]) == [0]:
                await asyncio.sleep(0.005)
        assert await receive(listener) == [message]


async def test_nothing_is_kept_for_nobody(world):
    broker = await world.broker()
    await broker.bus().publish([news() for _ in range(10)])
    await broker.bus().answer(news("me"), ttl=10)
    count = "SELECT count(*) FROM broadcasts"
    assert await broker._database.read(lambda c: c.execute(count).fetchall()) == [(0,)]
    async with broker.bus().listen("news"):
        await broker.bus().publish([news() for _ in range(10)])
        await world.advance(61)
        await broker.bus().publish([news()])
        assert await broker._database.read(lambda c: c.execute(count).fetchall()) == [(1,)]


async def test_silence_costs_nothing(world):
    """A listener looks only when somebody rings, and every few seconds."""
    broker = await world.broker()
    async with broker.bus().listen("news") as listener:
        await broker.bus().publish([news()])
        await receive(listener)
        statements: list[str] = []
        await broker._database.read(lambda c: c.set_trace_callback(statements.append))
        waiting = asyncio.create_task(listener.receive())
        await asyncio.wait([waiting], timeout=0.5)
        await broker._database.read(lambda c: c.set_trace_callback(None))
        assert len(statements) < 10
        waiting.cancel()


async def test_broadcasts_do_not_wake_who_waits_for_tasks(world):
    broker, other = await world.broker(), await world.broker()
    async with broker.bus().listen("news") as listener:
        waiting = asyncio.create_task(broker.wait(["celery"], timeout=60))
        for _ in range(20):
            await other.bus().publish([news()])
        await receive(listener, 20)
        assert not waiting.done()
        waiting.cancel()


async def test_a_file_of_layout_2_goes_on(world):
    with contextlib.closing(sqlite3.connect(world.path)) as connection:
        connection.executescript(LAYOUT_2.read_text())
    broker = await world.broker()
    assert [entry.content for entry in await broker.dead()] == [b"0", b"1"]
    assert (await broker.claim(["celery"], limit=0)).revoked == ["drop:t"]
    await leases_end(world, broker)
    assert await broker.recover() == 1
    deliveries = await take(broker)
    assert bodies(deliveries) == ["d", "a", "b", "c"]
    assert (deliveries[0].deliveries, deliveries[0].interruptions) == (5, 4)
    await broker.bind([Binding("logs", "topic", "#", "all")])
    assert len(await broker.bindings("logs")) == 1
    async with broker.bus().listen("news") as listener:
        await broker.bus().publish([message := news()])
        assert await receive(listener) == [message]


async def test_a_file_of_layout_2_becomes_what_a_new_one_is(tmp_path):
    def layout(path: Path) -> list[tuple[str, str]]:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            query = "SELECT name, replace(sql, char(10), ' ') FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
            return connection.execute(query).fetchall()

    earlier, fresh = tmp_path / "earlier.sqlite3", tmp_path / "fresh.sqlite3"
    with contextlib.closing(sqlite3.connect(earlier)) as connection:
        connection.executescript(LAYOUT_2.read_text())
    for path in (earlier, fresh):
        async with SQLiteBroker(str(path)):
            pass
    assert layout(earlier) == layout(fresh)
