"""Every backend counts the parts of chords by the same rules; in Redis a Celery worker counts along."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import uuid
from pathlib import Path
from typing import ClassVar

import pytest
import redis
from celery import Celery, states
from celery.app.task import Context

from aioretryq.backends.disabled import DisabledBackend
from aioretryq.backends.memory import MemoryBackend
from aioretryq.backends.redis import RedisBackend
from aioretryq.config import Settings
from aioretryq.drivers import sqlite_layout
from aioretryq.errors import BackendError, ConfigError
from aioretryq.message import ChordAddition, ChordClaim, ChordOpening
from contracts.chord_contract import ChordContract, opening, part
from contracts.overdue_contract import OverdueContract
from contracts.redis_time import let_pass
from contracts.shifted_clock import ShiftedClock
from contracts.sqlite_world import SQLiteWorld

LAYOUT_2 = Path(__file__).parent.parent / "contracts" / "sqlite_layout_2.sql"


class MemoryWorld(ShiftedClock):
    def __init__(self, stack):
        super().__init__()
        self._stack = stack
        self._name = uuid.uuid4().hex

    async def connect(self):
        return await self._stack.enter_async_context(MemoryBackend(self._name, clock=self))


class FileWorld(SQLiteWorld):
    connect = SQLiteWorld.backend


class RedisWorld:
    """The server deletes what has expired: to let time pass, everything is given less to live."""

    options: ClassVar[dict] = {}

    def __init__(self, stack, url):
        self._stack = stack
        self._url = url

    async def connect(self):
        settings = Settings()
        settings.update({"result_backend_transport_options": self.options})
        return await self._stack.enter_async_context(RedisBackend(self._url, settings))

    async def advance(self, seconds):
        let_pass(self._url, seconds)


class TestMemory(ChordContract, OverdueContract):
    @pytest.fixture
    async def world(self):
        async with contextlib.AsyncExitStack() as stack:
            yield MemoryWorld(stack)


class TestSQLite(ChordContract, OverdueContract):
    @pytest.fixture
    async def world(self, tmp_path):
        async with contextlib.AsyncExitStack() as stack:
            yield FileWorld(stack, tmp_path)


def make_layout_3(path):
    """A file that an earlier version has left behind."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(LAYOUT_2.read_text() + sqlite_layout.UPGRADES[2] + "PRAGMA user_version = 3")


class TestEarlierFiles:
    """Of layout 3, which had chords but nobody who rescued them."""

    INSERT = "INSERT INTO chord_parts (group_id, task_id, position, content) VALUES ('g', ?, ?, ?)"

    @pytest.fixture
    async def world(self, tmp_path):
        async with contextlib.AsyncExitStack() as stack:
            world = FileWorld(stack, tmp_path)
            make_layout_3(world.path)
            yield world

    @pytest.fixture
    def earlier(self, world):
        """A process that still has it open."""
        with contextlib.closing(sqlite3.connect(world.path, isolation_level=None)) as connection:
            connection.execute("INSERT INTO chords (group_id, size) VALUES ('g', 3)")
            connection.execute(self.INSERT, ("t0", 0, b"r0"))
            yield connection

    async def test_chords_go_on(self, world, earlier):
        backend = await world.connect()
        assert await backend.count_parts([part(0), part(1)]) == [False, False]
        assert await backend.count_parts([part(2)]) == [True]
        assert await backend.chord_parts("g") == [b"r0", b"r1", b"r2"]

    async def test_who_has_it_open_counts_along(self, world, earlier):
        backend = await world.connect()
        earlier.execute(self.INSERT, ("t1", 1, b"r1"))
        assert await backend.count_parts([part(2, body=b"body")]) == [True]
        earlier.execute("UPDATE chords SET done = 1, expires = 2")
        earlier.execute("DELETE FROM chords")
        query = "SELECT (SELECT count(*) FROM chord_bodies), (SELECT count(*) FROM chord_additions)"
        assert earlier.execute(query).fetchall() == [(0, 0)]

    async def test_who_has_it_open_closes_a_chord(self, world, earlier):
        backend = await world.connect()
        await backend.open_chords([opening(1, "h")])
        earlier.execute("UPDATE chords SET sender = 'tok', done = 1, expires = 9e9 WHERE group_id = 'h'")
        for _ in range(3):
            await world.advance(400)
            assert await backend.overdue_chords(5, 10) == []

    async def test_who_has_it_open_knows_of_parts_that_were_added(self, world, earlier):
        backend = await world.connect()
        await backend.add_parts([ChordAddition("g", "t9"), ChordAddition("h", "t9")])
        await backend.open_chords([opening(1, "h")])
        sizes = earlier.execute("SELECT group_id, size FROM chords ORDER BY group_id").fetchall()
        assert sizes == [("g", 4), ("h", 2)]


class TestRedis(ChordContract, OverdueContract):
    @pytest.fixture
    async def world(self, redis_url):
        async with contextlib.AsyncExitStack() as stack:
            yield RedisWorld(stack, redis_url)

    async def test_a_key_of_another_program_is_an_error_and_nothing_is_counted(self, backend, redis_url):
        with redis.Redis.from_url(redis_url) as client:
            client.set("celery-taskset-meta-h.j", "mine")
            with pytest.raises(BackendError):
                await backend.count_parts([part(0), part(0, chord="h")])
            assert client.keys("celery-taskset-meta-g*") == []


class TestOurKeys:
    """What Redis keeps of open chords besides Celery's keys does not stay."""

    @pytest.fixture
    async def backend(self, redis_url):
        settings = Settings()
        settings.update({"result_backend_transport_options": {"global_keyprefix": "shop"}})
        async with RedisBackend(redis_url, settings) as backend:
            yield backend

    @pytest.fixture
    def server(self, redis_url):
        with redis.Redis.from_url(redis_url) as client:
            yield client

    async def test_they_go_with_the_chord(self, backend, server):
        await backend.open_chords([ChordOpening("g", 1, 100, b"body")])
        entry = "shop_celery-taskset-meta-g.r"
        assert server.hgetall(entry)[b"body"] == b"body"
        assert 3600 < server.ttl(entry) <= 3700
        assert server.zrange("shop_aioretryq.chords", 0, -1) == [b"g"]
        await backend.count_parts([part(0)])
        await backend.close_chords([ChordClaim("g", "by-t0")])
        assert server.keys() == [b"shop_celery-taskset-meta-g.c"]

    async def test_of_one_that_is_closed_only_its_opener_is_kept(self, backend, server):
        await backend.open_chords([ChordOpening("g", 1, 100, b"body", token="a")])
        await backend.count_parts([part(0)])
        await backend.close_chords([ChordClaim("g", "by-t0")])
        entry = "shop_celery-taskset-meta-g.r"
        assert server.hgetall(entry) == {b"opener": b"a"}
        assert 298 <= server.ttl(entry) <= 300

    async def test_of_one_that_lives_for_ever_nothing_stays(self, backend, redis_url, server):
        await backend.open_chords([ChordOpening("g", 1, None, b"body")])
        assert server.ttl("shop_celery-taskset-meta-g.r") > 86400
        server.delete("shop_celery-taskset-meta-g.s")  # as a Celery worker that has sent its body
        server.set("shop_celery-taskset-meta-g.c", "done")
        let_pass(redis_url, 11)
        assert await backend.overdue_chords(20, 10) == []
        assert server.keys() == [b"shop_celery-taskset-meta-g.c"]

    @pytest.mark.parametrize("broken", [".j", ".r"])
    async def test_one_that_is_broken_keeps_nobody_from_the_others(self, backend, redis_url, server, broken):
        await backend.open_chords([ChordOpening(name, 1, 1e6, b"body", 5.0) for name in ("bad", "good")])
        server.delete(f"shop_celery-taskset-meta-bad{broken}")
        server.rpush(f"shop_celery-taskset-meta-bad{broken}", "not as it should be")
        let_pass(redis_url, 20)
        told = [(each.group_id, each.why) for each in await backend.overdue_chords(20, 10)]
        assert sorted(told) == [("bad", "broken"), ("good", "unsent")]
        let_pass(redis_url, 1000)
        (again,) = await backend.overdue_chords(20, 10)
        assert (again.group_id, again.told) == ("good", 2)

    @pytest.mark.parametrize("kind", [".s", ".t"])
    async def test_a_size_that_is_no_number_is_not_known(self, backend, redis_url, server, kind):
        await backend.open_chords([ChordOpening("g", 1, 1000, b"body")])
        server.set(f"shop_celery-taskset-meta-g{kind}", "many", keepttl=True)
        assert await backend.count_parts([part(0, ttl=1000)]) == [False]
        let_pass(redis_url, 950)
        (found,) = await backend.overdue_chords(20, 10)
        assert (found.why, found.returned, found.size) == ("expired", 1, None)

    async def test_what_was_forgotten_is_dropped_by_the_next_look(self, backend, redis_url, server):
        await backend.open_chords([ChordOpening("g", 1, 100, b"body")])
        let_pass(redis_url, 101)
        assert await backend.overdue_chords(20, 10) == []
        assert server.keys("*chords") == []

    async def test_nobody_looks(self, backend, redis_url, server):
        """There are only clients of ours, and workers of Celery."""
        await backend.open_chords([ChordOpening(f"g{n}", 1, 100, b"body") for n in range(3)])
        let_pass(redis_url, 3 * 86400)
        await backend.open_chords([ChordOpening("g", 1, 100, b"body")])
        assert server.zrange("shop_aioretryq.chords", 0, -1) == [b"g"]

    async def test_those_that_live_are_kept_meanwhile(self, backend, redis_url, server):
        await backend.open_chords([ChordOpening("living", 1, 10 * 86400, b"body", 60.0)])
        let_pass(redis_url, 3 * 86400)
        await backend.open_chords([ChordOpening("g", 1, 100, b"body")])
        assert [each.group_id for each in await backend.overdue_chords(20, 10)] == ["living"]


class TestCelerysKeys:
    """The keys and values of Celery 5.7 (tests/golden; celery/backends/redis.py)."""

    @pytest.fixture
    async def backend(self, redis_url):
        async with RedisBackend(redis_url, Settings()) as backend:
            yield backend

    @pytest.fixture
    def server(self, redis_url):
        with redis.Redis.from_url(redis_url) as client:
            yield client

    @pytest.fixture
    def celery(self, redis_url):
        """Its backend: counts a part as its worker does, and would send the body."""
        app = Celery("counting", broker=redis_url, backend=redis_url, set_as_current=False)
        yield app.backend
        app.backend.client.connection_pool.disconnect()
        app.close()

    async def test_what_is_kept(self, backend, server):
        await backend.open_chords([ChordOpening("g", 2, 100)])
        await backend.count_parts([part(0), part(1)])
        prefix = "celery-taskset-meta-g"
        assert server.get(f"{prefix}.s") == b"2"
        assert server.zrange(f"{prefix}.j", 0, -1, withscores=True) == [(b"r0", 0.0), (b"r1", 1.0)]
        assert {b"t0:0", b"t1:1"} < server.smembers(f"{prefix}.d")
        assert server.get(f"{prefix}.c") == b"by-t1"
        assert all(98 <= server.ttl(f"{prefix}{kind}") <= 100 for kind in (".s", ".j", ".d"))
        assert 4 <= server.ttl(f"{prefix}.c") <= 6
        await backend.close_chords([ChordClaim("g", "by-t1")])
        assert server.keys(f"{prefix}*") == [f"{prefix}.c".encode()]
        assert server.get(f"{prefix}.c") == b"done"
        assert 298 <= server.ttl(f"{prefix}.c") <= 300

    async def test_without_order(self, redis_url, server):
        settings = Settings()
        settings.update({"result_backend_transport_options": {"result_chord_ordered": False}})
        async with RedisBackend(redis_url, settings) as backend:
            await backend.open_chords([ChordOpening("g", 2, 100)])
            assert await backend.count_parts([part(1), part(0)]) == [False, True]
            assert await backend.chord_parts("g") == [b"r1", b"r0"]
        assert server.lrange("celery-taskset-meta-g.j", 0, -1) == [b"r1", b"r0"]

    async def test_parts_added_later_are_waited_for(self, backend, server):
        await backend.open_chords([ChordOpening("g", 1, 100)])
        server.incr("celery-taskset-meta-g.t")  # Celery's add_to_chord
        assert await backend.count_parts([part(0), part(1)]) == [False, True]

    async def test_both_count_one_header(self, backend, celery, server):
        celery.set_chord_size("g", 3)
        request = Context(id="t0", group="g", group_index=0, chord={"task": "w.body"})
        celery.on_chord_part_return(request, states.SUCCESS, "from celery")
        celery.on_chord_part_return(request, states.SUCCESS, "again")
        assert await backend.count_parts([part(1), part(0), part(2)]) == [False, False, True]
        first, *_ = await backend.chord_parts("g")
        assert json.loads(first) == [1, "t0", "SUCCESS", "from celery"]
        assert celery.on_chord_part_return(request, states.SUCCESS, "a third time") is None
        assert server.llen("celery") == 0, "the body is ours to send"

    async def test_its_parts_live_for_less(self, backend, celery, redis_url):
        """A worker of Celery with another `result_expires` counts one of ours: the chord is as healthy as before."""
        celery.expires = 3600
        await backend.open_chords([opening(2, ttl=86400.0)])
        request = Context(id="t0", group="g", group_index=0, chord={"task": "w.body"})
        let_pass(redis_url, 11)
        assert await backend.overdue_chords(60, 10) == []
        celery.on_chord_part_return(request, states.SUCCESS, "from celery")
        for _ in range(8):
            let_pass(redis_url, 400)
            assert await backend.overdue_chords(60, 10) == []
        let_pass(redis_url, 100)
        assert [each.why for each in await backend.overdue_chords(60, 10)] == ["expired"]


async def test_without_a_backend_there_are_no_chords():
    async with DisabledBackend() as backend:
        assert await backend.count_parts([part(0)]) == [False]
        with pytest.raises(ConfigError, match="result_backend="):
            await backend.open_chords([ChordOpening("g", 1, None)])
        with pytest.raises(ConfigError, match="result_backend="):
            await backend.amend_chords([ChordOpening("g", 1, None)])
        with pytest.raises(ConfigError, match="result_backend="):
            await backend.add_parts([ChordAddition("g", "t")])
        assert await backend.overdue_chords(5, 10) == []
