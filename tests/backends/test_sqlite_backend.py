"""The SQLite backend keeps the contract, also where there is no UDP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3

import pytest

from aioretryq import states
from aioretryq.backends import sqlite
from aioretryq.backends.sqlite import SQLiteBackend
from aioretryq.backends.store import ResultStore
from aioretryq.config import Settings
from aioretryq.drivers import doorbell
from aioretryq.errors import BackendUnavailable
from contracts.backend_contract import BackendContract, doc, drop, hear, result, subscribe
from contracts.sqlite_world import SQLiteWorld
from queues import until


class BackendWorld(SQLiteWorld):
    connect = SQLiteWorld.backend


@pytest.fixture
async def world(tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        yield BackendWorld(stack, tmp_path)


class TestSQLiteBackend(BackendContract):
    @pytest.fixture
    async def world(self, world):
        return world

    async def test_cleanup_counts(self, world, backend, monkeypatch):
        monkeypatch.setattr(sqlite, "CLEANED_AT_ONCE", 3)
        await backend.store([result(str(n), ttl=10) for n in range(7)])
        await world.advance(11)
        assert await backend.cleanup() == 7

    async def test_more_changes_than_fit_into_datagrams(self, world, backend):
        names = [f"{'x' * 1100}{n}" for n in range(200)]
        other = await world.connect()
        async with backend.listen() as listener:
            await drop(await subscribe(listener, *names))
            await other.store([result(name) for name in names])
            assert await hear(listener, 200) == {name: doc(name) for name in names}

    async def test_datagrams_of_strangers_do_no_harm(self, backend):
        async with backend.listen() as listener:
            receiving = await subscribe(listener, "a")
            ((port,),) = await backend._database.read(lambda c: c.execute("SELECT port FROM listeners").fetchall())
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for datagram in (b"", b"\xff\xfe\x00\x00", b"a", b"a\0b", bytes(1000)):
                    stranger.sendto(datagram, (doorbell.HOST, port))
            await backend.store([result("a")])
            async with asyncio.timeout(10):
                assert await receiving == [("a", doc("a"))]

    async def test_a_document_is_told_once(self, backend):
        async with backend.listen() as listener:
            await drop(await subscribe(listener, "a", "b"))
            await backend.store([result("a", states.STARTED)])
            assert await hear(listener) == {"a": doc("a", states.STARTED)}
            await backend.store([result("a", states.STARTED)])
            await backend.store([result("b")])
            assert await hear(listener) == {"b": doc("b")}

    async def test_a_listener_hears_also_when_the_file_is_the_brokers(self, world, backend):
        async with backend.listen() as listener:
            receiving = await subscribe(listener, "a")
            broker = await world.broker()
            await broker.revoke(["t"], ttl=10)
            await backend.store([result("a")])
            async with asyncio.timeout(10):
                assert await receiving == [("a", doc("a"))]

    async def test_errors_are_the_backends(self, backend):
        await backend._database.read(lambda c: c.execute("PRAGMA query_only = ON"))
        with pytest.raises(BackendUnavailable, match="cannot be written to"):
            await backend.store([result("a")])
        await backend._database.read(lambda c: c.execute("PRAGMA query_only = OFF"))


class TestSQLiteBackendWithoutUDP(BackendContract):
    @pytest.fixture
    async def world(self, world, monkeypatch):
        monkeypatch.setattr(doorbell, "HOST", "192.0.2.1")  # no interface has this address: binding fails
        return world


def test_the_url_names_the_file():
    assert sqlite.SQLiteBackend.from_url("sqlite:///a.sqlite3", Settings()).display_url == "sqlite:///a.sqlite3"


async def test_a_file_that_another_program_has_locked(tmp_path, caplog):
    path = f"{tmp_path}/results.sqlite3"
    async with SQLiteBackend(path) as backend:
        store = ResultStore(backend, Settings())
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(BackendUnavailable, match="another process has held its lock for too long"):
                await backend.store([result("a")])
            storing = asyncio.create_task(store.store([result("a")]))
            await until(lambda: "retry 1" in caplog.text)
            assert await backend.fetch(["a"]) == [None], "reading does not wait for writers"
            other.execute("ROLLBACK")
        other.close()
        assert await storing == [True]
        assert await backend.fetch(["a"]) == [doc("a")]
