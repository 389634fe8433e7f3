"""The SQLite broker keeps the contract, also without UDP, between processes, and with very many messages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from aioretryq import states
from aioretryq.backends.memory import MemoryBackend
from aioretryq.backends.sqlite import SQLiteBackend
from aioretryq.brokers import sqlite_store
from aioretryq.brokers.sqlite import SQLiteBroker
from aioretryq.config import Settings
from aioretryq.drivers import doorbell
from aioretryq.errors import BrokerError, BrokerUnavailable, ConfigError, NotOpenError
from aioretryq.message import Delivery, Finish
from aioretryq.protocol.deadletter import entry_time
from contracts.backend_contract import doc, result, subscribe
from contracts.broker_contract import BrokerContract
from contracts.broker_world import LEASE, bodies, dead_entry, envelope, leases_end, message, sweeps, take, take_one
from contracts.sqlite_world import SQLiteWorld, make_layout_1

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class BrokerWorld(SQLiteWorld):
    connect = SQLiteWorld.broker


@pytest.fixture
async def world(tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        yield BrokerWorld(stack, tmp_path)


class TestSQLiteBroker(BrokerContract):
    @pytest.fixture
    async def world(self, world):
        return world

    async def test_all_ten_priorities_differ(self, broker):
        await broker.send([message(str(p), priority=p) for p in reversed(range(10))])
        assert bodies(await take(broker)) == [str(p) for p in range(10)]

    async def test_a_tag_is_forgotten_after_a_minute(self, world, broker):
        sent = message("a")
        await broker.send([sent])
        await world.advance(61)
        await broker.send([sent])
        assert bodies(await take(broker)) == ["a", "a"]

    async def test_a_queue_named_twice_is_one_queue(self, broker):
        await broker.send([message("a")])
        assert bodies(await take(broker, "celery", "celery")) == ["a"]

    async def test_a_revocation_wakes_the_waiting(self, world, broker):
        other = await world.connect()
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(broker.wait(["celery"], timeout=60))
            await broker.wait(["mail"], timeout=0.1)
            await other.revoke(["t"], ttl=60)

    async def test_waits_are_quiet(self, broker):
        # Returning early is allowed, but not as a habit: it would be a busy loop.
        await broker.wait(["celery"], timeout=0)
        waiting = asyncio.create_task(broker.wait(["celery"], timeout=60))
        await asyncio.wait([waiting], timeout=0.5)
        assert not waiting.done()
        waiting.cancel()

    async def test_opens_again_after_closing(self, broker):
        await broker.send([message("a")])
        await broker.wait(["mail"], timeout=0)
        await broker.__aexit__(None, None, None)
        with pytest.raises(NotOpenError, match="async with"):
            await take(broker)
        async with broker:
            await broker.wait(["celery"], timeout=60)
            assert bodies(await take(broker)) == ["a"]

    async def test_a_foreign_receipt_is_a_lost_lease(self, broker):
        await broker.send([message("a")])
        delivery = await take_one(broker)
        for tag in ("", "nonsense", f"{delivery.tag}0", "99999999999999999999999:x"):
            forged = Delivery("celery", b"a", tag)
            assert await broker.finish([Finish(forged)]) == [False]
        assert await broker.finish([Finish(delivery)]) == [True]

    async def test_a_closed_broker_rings_nobody_and_is_not_rung(self, world, broker):
        other = await world.connect()
        await other.wait(["celery"], timeout=0)
        await other.__aexit__(None, None, None)
        rows = await broker._database.read(lambda c: c.execute("SELECT * FROM listeners").fetchall())
        assert rows == []

    async def test_every_statement_uses_an_index(self, world, broker):
        statements: list[str] = []
        await broker._database.read(lambda c: c.set_trace_callback(statements.append))
        sent = [message(str(n)) for n in range(4)]
        await broker.send([*sent, message("later", due=world.now() + 10)])
        await world.advance(20)
        a, b, c, _d, _ = await take(broker, "celery", "mail")
        await broker.finish([Finish(a, (message("next"),), dead_entry(1))])
        await broker.extend([b, c])
        await broker.requeue([c])
        await leases_end(world, broker)
        assert await broker.recover() == 3
        await broker.wait(["mail", "celery"], timeout=0)
        await broker.depth(["celery"])
        await broker.purge("celery")
        await broker.revoke(["t"], ttl=1)
        await broker.bury([dead_entry(2)])
        assert len(await broker.dead()) == 2
        await broker.dead_entry("none")
        await broker.exhume([("none", None)])
        await broker.trim_dead(keep=10, before="")
        await broker._database.read(lambda c: c.set_trace_callback(None))
        plans = [await plan(broker, s) for s in statements if s.startswith(("SELECT", "UPDATE", "DELETE", "INSERT"))]
        assert len(plans) > 20
        for statement, detail in plans:
            small = any(table in statement for table in ("FROM revoked", "FROM listeners", "FROM dead"))
            assert small or "SCAN" not in detail, (statement, detail)
            assert small or "TEMP B-TREE" not in detail, (statement, detail)

    async def test_a_second_finish_is_refused(self, world, broker):
        await broker.send([message("a")])
        delivery = await take_one(broker)
        assert await broker.finish([Finish(delivery), Finish(delivery)]) == [True, False]
        assert await broker.finish([Finish(delivery)]) == [False]

    async def test_a_sweep_that_finds_nothing_takes_no_lock(self, world, broker):
        await sweeps(world, broker, LEASE)
        async with locked(world.path):
            assert await broker.recover() == 0

    async def test_sweeps_shortly_after_each_other_are_noted_once(self, world, broker):
        await sweeps(world, broker, LEASE)
        first = await broker._database.read(lambda c: c.execute("SELECT * FROM sweep").fetchall())
        await world.advance(LEASE / 20)
        assert await broker.recover() == 0
        assert await broker._database.read(lambda c: c.execute("SELECT * FROM sweep").fetchall()) == first
        await world.advance(LEASE / 10)
        assert await broker.recover() == 0
        assert await broker._database.read(lambda c: c.execute("SELECT * FROM sweep").fetchall()) != first

    async def test_a_finish_that_fails_has_done_nothing(self, world, broker):
        await broker.send([message("a"), message("b")])
        a, b = await take(broker)
        finishes = [Finish(a, (message("next"),), dead_entry(1)), Finish(b, (message(bytes(10**6)),))]
        await broker._database.write(lambda c: c.execute("PRAGMA max_page_count = 30"))
        with pytest.raises(BrokerUnavailable, match="free some space"):
            await broker.finish(finishes)
        assert (await broker.dead(), await broker.depth(["celery"])) == ([], {"celery": 0})
        await broker._database.write(lambda c: c.execute("PRAGMA max_page_count = 1000000"))
        assert await broker.finish(finishes) == [True, True]
        assert (await broker.dead_count(), await broker.depth(["celery"])) == (1, {"celery": 2})

    async def test_a_claim_that_fails_holds_nothing_back(self, world, broker):
        await broker.send([message("a"), message("b")])
        await broker.revoke(["t"], ttl=60)
        await broker._database.read(lambda c: c.execute("PRAGMA query_only = ON"))
        with pytest.raises(BrokerUnavailable):
            await take(broker)
        await broker._database.read(lambda c: c.execute("PRAGMA query_only = OFF"))
        claim = await broker.claim(["celery"], limit=10)
        assert (bodies(claim.deliveries), claim.revoked) == (["a", "b"], ["t"])

    async def test_a_finish_carries_results_along(self, world, broker):
        backend, elsewhere = await world.backend(), SQLiteBackend(f"{world.path}-other")
        assert (broker.joins(backend), broker.joins(elsewhere)) == (True, False)
        assert not broker.joins(MemoryBackend())
        await broker.send([message(name) for name in "abc"])
        a, b, c = await take(broker)
        await broker.requeue([b])
        await backend.store([result("c", states.FAILURE)])
        async with backend.listen() as listener:
            receiving = await subscribe(listener, "a", "b")
            finishes = [
                Finish(a, (message("next"),), result=result("a")),
                Finish(b, (message("never"),), result=result("b")),
                Finish(c, result=result("c")),
            ]
            assert await broker.finish(finishes) == [True, False, True]
            assert dict(await receiving) == {"a": doc("a")}
        # Of the lost one nothing is done, and a final state stays.
        assert await backend.fetch(["a", "b", "c"]) == [doc("a"), None, doc("c", states.FAILURE)]
        assert bodies(await take(broker)) == ["b", "next"]

    async def test_a_finish_that_fails_has_stored_no_result(self, world, broker):
        backend = await world.backend()
        await broker.send([message("a")])
        (a,) = await take(broker)
        await broker._database.write(lambda c: c.execute("PRAGMA max_page_count = 30"))
        with pytest.raises(BrokerUnavailable, match="free some space"):
            await broker.finish([Finish(a, (message(bytes(10**6)),), result=result("a"))])
        assert await backend.fetch(["a"]) == [None]

    async def test_what_is_parked_is_no_reason_to_claim_before_it_is_due(self, world, broker):
        other = await world.connect()
        waiting = asyncio.create_task(broker.wait(["celery"], timeout=60))
        await broker.wait(["mail"], timeout=0.1)
        await other.send([message("later", due=world.now() + 3600)])
        await other.send([message("soon", due=world.now() + 0.3)])
        started = time.monotonic()
        await asyncio.wait_for(waiting, 10)
        assert time.monotonic() - started > 0.2
        assert bodies(await take(broker)) == ["soon"]

    async def test_a_lock_is_had_soon_after_it_is_free(self, world, broker):
        async with locked(world.path):
            sending = asyncio.create_task(broker.send([message("a")]))
            await asyncio.wait([sending], timeout=0.3)
            assert not sending.done()
        await asyncio.wait_for(sending, 5)

    async def test_many_tags_that_are_over_are_forgotten_bit_by_bit(self, world, broker, monkeypatch):
        monkeypatch.setattr(sqlite_store, "FORGOTTEN_AT_ONCE", 3)
        sent = [message(str(n)) for n in range(5)]
        await broker.send(sent)
        await world.advance(61)
        await broker.send([])
        await broker.send(sent)  # also those that are not forgotten yet
        assert len(await take(broker)) == 10
        await broker.send(sent)
        assert await take(broker) == []

    async def test_a_fresh_send_that_was_cancelled_adds_nothing_when_it_is_repeated(self, world, broker):
        sent = [replace(message(str(n)), fresh=True) for n in range(3)]
        async with locked(world.path):
            sending = asyncio.create_task(broker.send(sent))
            await asyncio.wait([sending], timeout=0.1)  # now the thread wants the lock
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
        more = replace(message("more"), fresh=True)
        await broker.send([*reversed(sent), more])
        await broker.send(sent)
        assert bodies(await take(broker)) == ["0", "1", "2", "more"]

    async def test_a_fresh_send_that_failed_is_carried_out_once_when_it_is_repeated(self, world, broker):
        sent = [replace(message(str(n)), fresh=True) for n in range(3)]
        await broker._database.read(lambda c: c.execute("PRAGMA query_only = ON"))
        with pytest.raises(BrokerUnavailable):
            await broker.send(sent)
        await broker._database.read(lambda c: c.execute("PRAGMA query_only = OFF"))
        for _ in range(2):
            await broker.send(sent)
        assert bodies(await take(broker)) == ["0", "1", "2"]

    async def test_doubts_are_forgotten(self, world, broker):
        await broker._database.read(lambda c: c.execute("PRAGMA query_only = ON"))
        for _ in range(3):
            with pytest.raises(BrokerUnavailable):
                await broker.send([replace(message("a"), fresh=True)])
            await world.advance(61)
        assert len(broker._sends._doubts) == 1

    async def test_of_a_fresh_batch_one_name_is_kept(self, broker):
        await broker.send([replace(message(str(n)), fresh=True) for n in range(50)])
        assert await broker._database.read(lambda c: c.execute("SELECT count(*) FROM sent").fetchone()) == (1,)

    async def test_batches_of_any_size(self, broker):
        for count in (1, 2, 3, 511, 512, 513, 1025):
            sent = [message(str(n)) for n in range(count)]
            await broker.send(sent)
            await broker.send(sent)
            deliveries = await take(broker, limit=2000)
            assert bodies(deliveries) == [str(n) for n in range(count)]
            assert await broker.extend(deliveries) == [True] * count
            assert await broker.finish([Finish(each) for each in deliveries]) == [True] * count

    async def test_a_finish_whose_caller_is_cancelled_is_whole(self, world, broker):
        await broker.send([message("a")])
        delivery = await take_one(broker)
        async with locked(world.path):
            finishing = asyncio.create_task(broker.finish([Finish(delivery, (message("next"),), dead_entry(1))]))
            await asyncio.sleep(0)  # now it is with the thread, which wants the lock, or will
            finishing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await finishing
        counts = (await broker.depth(["celery"]))["celery"], await broker.dead_count()
        assert counts in [(0, 0), (1, 1)]
        assert await broker.finish([Finish(delivery)]) == [counts == (0, 0)]

    async def test_a_twin_rings_in_another_loop(self, world, broker):
        async def send() -> None:
            async with broker.twin() as twin:
                await twin.send([message("a")])

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(broker.wait(["celery"], timeout=60))
            await broker.wait(["mail"], timeout=0.1)
            await asyncio.to_thread(asyncio.run, send())
        assert bodies(await take(broker)) == ["a"]


@contextlib.asynccontextmanager
async def locked(path: str) -> AsyncIterator[None]:
    """Another program is writing: who needs the lock waits, and fails after five seconds."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("COMMIT")


async def plan(broker: SQLiteBroker, statement: str) -> tuple[str, str]:
    rows = await broker._database.read(lambda c: c.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall())
    return statement, "; ".join(row[-1] for row in rows)


class TestSQLiteBrokerWithoutUDP(BrokerContract):
    @pytest.fixture
    async def world(self, world, monkeypatch):
        monkeypatch.setattr(doorbell, "HOST", "192.0.2.1")  # no interface has this address: binding fails
        return world

    async def test_polling_is_announced(self, world, caplog):
        await world.connect()
        assert "looking into the SQLite file every 0.2 s" in caplog.text


# -- processes


async def start(*arguments: str) -> asyncio.subprocess.Process:
    program = str(Path(__file__).with_name("sqlite_process.py"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return await asyncio.create_subprocess_exec(
        sys.executable, program, *arguments, stdout=asyncio.subprocess.PIPE, env=environment
    )


async def test_three_processes_send_and_three_claim(tmp_path):
    path, count = str(tmp_path / "queue.sqlite3"), 600
    # None of them finds the file: creating it is part of the race.
    claiming = [await start("claim", path, f"claimer-{n}") for n in range(3)]
    sending = [await start("send", path, f"sender-{n}", str(count)) for n in range(3)]
    async with asyncio.timeout(100):
        assert [await process.wait() for process in sending] == [0, 0, 0]
        async with SQLiteBroker(path) as broker:
            await broker.send([message("stop", f"claimer-{n}") for n in range(3)])
        outputs = [(await process.communicate())[0] for process in claiming]
        assert [process.returncode for process in claiming] == [0, 0, 0]
    names = b"".join(outputs).decode().split()
    assert sorted(names) == sorted(f"sender-{sender}-{n}" for sender in range(3) for n in range(count))


async def test_a_process_that_is_killed_loses_nothing(world):
    broker = await world.connect()
    await broker.send([message(envelope(str(n))) for n in range(50)])
    holding = await start("hold", world.path, "holder")
    assert holding.stdout is not None
    held = {await holding.stdout.readline() for _ in range(20)}
    waiting = asyncio.create_task(broker.wait(["celery"], timeout=60))
    holding.kill()
    await holding.communicate()
    await waiting
    assert len(held) == 20
    await leases_end(world, broker)
    assert await broker.recover() == 20
    deliveries = await take(broker)
    assert [delivery.body for delivery in deliveries] == [envelope(str(n)) for n in range(50)]
    assert [delivery.redelivered for delivery in deliveries] == [True] * 20 + [False] * 30


# -- files of an earlier version


async def test_a_file_of_layout_1_goes_on(world):
    make_layout_1(world.path)
    broker = await world.connect()
    assert [entry.content for entry in await broker.dead()] == [bytes([n]) for n in range(0x30, 0x41)]
    assert all(time.time() - 10 < entry_time(entry.id) <= time.time() for entry in await broker.dead())
    assert (await broker.claim(["celery"], limit=0)).revoked == ["drop:t"]
    assert await broker.extend([Delivery("celery", b"d", "4:receipt")]) == [True]
    await leases_end(world, broker)
    assert await broker.recover() == 1
    deliveries = await take(broker)
    assert [(d.body, d.deliveries, d.interruptions, d.redelivered) for d in deliveries] == [
        (b"d", 2, 0, True),
        (b"a", 1, 0, False),
        (b"b", 1, 0, False),
        (b"c", 1, 0, False),
    ]


async def test_several_processes_upgrade_at_once(tmp_path):
    path = str(tmp_path / "queue.sqlite3")
    make_layout_1(path)
    claiming = [await start("claim", path, f"claimer-{n}") for n in range(4)]
    async with asyncio.timeout(100), SQLiteBroker(path) as broker:
        await broker.send([message("stop", f"claimer-{n}") for n in range(4)])
        outputs = [(await process.communicate())[0] for process in claiming]
        assert [process.returncode for process in claiming] == [0] * 4
        assert sorted(b"".join(outputs).split()) == [b"a", b"b", b"c"]
        assert await broker.dead_count() == 17


# -- what can be wrong


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite://queue.sqlite3", "sqlite:///queue.sqlite3"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///a.sqlite3?mode=ro", r"options after"),
    ],
)
def test_urls_that_name_no_file(url, hint):
    with pytest.raises(ConfigError, match=hint):
        SQLiteBroker.from_url(url, Settings())


async def test_a_relative_path_stays_where_it_was_for_a_twin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with SQLiteBroker.from_url("sqlite:///a.sqlite3", Settings()) as broker:
        await broker.send([message("a")])
        monkeypatch.chdir("/")
        async with broker.twin() as twin:
            assert twin.display_url == "sqlite:///a.sqlite3"
            assert bodies(await take(twin)) == ["a"]


async def test_relative_and_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with SQLiteBroker.from_url("sqlite:///a.sqlite3", Settings()) as broker:
        assert broker.display_url == "sqlite:///a.sqlite3"
    async with SQLiteBroker.from_url(f"sqlite:///{tmp_path}/b.sqlite3", Settings()) as broker:
        assert broker.display_url == f"sqlite:///{tmp_path}/b.sqlite3"
    assert {path.name for path in tmp_path.iterdir()} == {"a.sqlite3", "b.sqlite3"}


async def test_errors_are_the_brokers(tmp_path):
    async with SQLiteBroker(str(tmp_path / "a.sqlite3")) as broker:
        await broker._database.read(lambda c: c.execute("PRAGMA query_only = ON"))
        with pytest.raises(BrokerUnavailable, match="cannot be written to") as unavailable:
            await broker.send([message("a")])
        assert unavailable.value.__cause__ is not None
        await broker._database.read(lambda c: c.execute("PRAGMA query_only = OFF"))
        await broker._database.write(lambda c: c.execute("DROP TABLE dead"))
        with pytest.raises(BrokerError, match="no such table"):
            await broker.dead()
