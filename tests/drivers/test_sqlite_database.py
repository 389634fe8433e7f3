"""The SQLite file: transactions from asyncio, and files that are not what they should be."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading

import pytest

from aioretryq.drivers.sqlite import Database
from aioretryq.drivers.sqlite_layout import SCHEMA_VERSION
from aioretryq.errors import BrokerError, BrokerUnavailable, ConfigError, NotOpenError
from contracts.sqlite_world import make_layout_1


def database(path) -> Database:
    return Database(str(path), unavailable=BrokerUnavailable, refused=BrokerError, busy=0.2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "queue.sqlite3"


@pytest.fixture
async def db(path):
    opened = database(path)
    await opened.open()
    yield opened
    await opened.aclose()


def bury(connection: sqlite3.Connection, entry: bytes) -> None:
    connection.execute("INSERT INTO dead (id, content) SELECT printf('%04d', count(*)), ? FROM dead", (entry,))


def buried(connection: sqlite3.Connection) -> list[bytes]:
    return [content for (content,) in connection.execute("SELECT content FROM dead ORDER BY id")]


# -- transactions


async def test_a_failed_transaction_leaves_nothing(db):
    def work(connection: sqlite3.Connection) -> None:
        bury(connection, b"a")
        raise LookupError("a bug")

    rung: list[object] = []
    with pytest.raises(LookupError):
        await db.write(work, rung.append)
    assert await db.read(buried) == []
    assert rung == []
    await db.write(lambda c: bury(c, b"b"), rung.append)
    assert await db.read(buried) == [b"b"]
    assert rung == [None]


async def test_a_cancelled_write_is_finished_in_the_thread(db):
    started, go_on, after = threading.Event(), threading.Event(), threading.Event()

    def work(connection: sqlite3.Connection) -> None:
        bury(connection, b"a")
        started.set()
        go_on.wait(10)
        bury(connection, b"b")

    writing = asyncio.create_task(db.write(work, lambda _: after.set()))
    await asyncio.to_thread(started.wait, 10)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    go_on.set()
    assert await db.read(buried) == [b"a", b"b"]
    assert after.is_set()


async def test_closing_waits_for_what_is_under_way(path):
    db = database(path)
    await db.open()
    started, go_on = threading.Event(), threading.Event()

    def work(connection: sqlite3.Connection) -> None:
        started.set()
        go_on.wait(10)
        bury(connection, b"a")

    writing = asyncio.create_task(db.write(work))
    await asyncio.to_thread(started.wait, 10)
    closing = asyncio.create_task(db.aclose())
    go_on.set()
    await asyncio.gather(writing, closing)
    await db.aclose()
    with pytest.raises(NotOpenError):
        await db.read(buried)
    async with contextlib.AsyncExitStack() as stack:
        await db.open()
        stack.push_async_callback(db.aclose)
        assert await db.read(buried) == [b"a"]


async def test_another_writer_is_waited_for_only_so_long(db, path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BrokerUnavailable, match="another process has held its lock") as unavailable:
            await db.write(lambda c: bury(c, b"a"))
        assert isinstance(unavailable.value.__cause__, sqlite3.OperationalError)
        assert await db.read(buried) == []
        other.execute("COMMIT")
    await db.write(lambda c: bury(c, b"a"))
    assert await db.read(buried) == [b"a"]


async def test_a_full_disk_is_worth_retrying(db):
    await db.write(lambda c: c.execute("PRAGMA max_page_count = 1"))
    with pytest.raises(BrokerUnavailable, match="free some space"):
        await db.write(lambda c: bury(c, bytes(10**6)))
    await db.write(lambda c: c.execute("PRAGMA max_page_count = 1000000"))
    await db.write(lambda c: bury(c, bytes(10**6)))


@pytest.mark.parametrize("pattern", ["*", "*.sqlite3"], ids=["all files", "without its log"])
async def test_a_deleted_file_is_made_anew(db, path, pattern):
    await db.write(lambda c: bury(c, b"a"))
    for file in path.parent.glob(pattern):
        file.unlink()
    other = database(path)
    await other.open()
    await other.write(lambda c: bury(c, b"b"))
    assert await db.read(buried) == [b"b"]
    await db.write(lambda c: bury(c, b"c"))
    assert await other.read(buried) == [b"b", b"c"]
    await other.aclose()


async def test_a_folder_that_is_gone_may_come_back(db, path):
    path.parent.rename(path.parent.with_name(f"{path.parent.name}-moved"))
    with pytest.raises(BrokerUnavailable, match="There is no folder"):
        await db.read(buried)
    path.parent.mkdir()
    assert await db.read(buried) == []


# -- opening


async def test_many_open_a_new_file_at_once(path):
    databases = [database(path) for _ in range(8)]
    await asyncio.gather(*(each.open() for each in databases))
    for number, each in enumerate(databases):
        await each.write(lambda c, n=number: bury(c, str(n).encode()))
    assert len(await databases[0].read(buried)) == 8
    await asyncio.gather(*(each.aclose() for each in databases))


async def refused(path, match: str) -> None:
    db = database(path)
    with pytest.raises(ConfigError, match=match) as error:
        await db.open()
    assert str(path) in str(error.value)
    with pytest.raises(NotOpenError):
        await db.read(buried)


async def test_a_missing_folder(tmp_path):
    await refused(tmp_path / "missing" / "queue.sqlite3", "There is no folder")


async def test_a_folder_instead_of_a_file(tmp_path):
    await refused(tmp_path, "cannot be opened")


async def test_a_file_that_is_no_database(path):
    path.write_bytes(b"this is text, and quite a lot of it\n" * 100)
    await refused(path, "not an SQLite database")


async def test_the_database_of_another_program(path):
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE messages (id)")
    before = path.read_bytes()
    await refused(path, "belongs to another program")
    assert path.read_bytes() == before


async def test_a_newer_layout(path):
    db = database(path)
    await db.open()
    await db.write(lambda c: c.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}"))
    await db.aclose()
    await refused(path, "newer aioretryq")


def layout(connection: sqlite3.Connection) -> dict[str, set[tuple[object, ...]]]:
    """The columns of each table (name, type, not null, default, key) and the indexes."""
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    return {name: {tuple(row[1:]) for row in connection.execute(f"PRAGMA table_info('{name}')")} for name in names}


async def test_an_earlier_layout_becomes_the_present_one(tmp_path, db):
    path = tmp_path / "earlier.sqlite3"
    make_layout_1(path)
    upgraded = [database(path) for _ in range(8)]
    await asyncio.gather(*(each.open() for each in upgraded))
    assert await upgraded[0].read(layout) == await db.read(layout)
    assert await upgraded[0].read(buried) == [bytes([n]) for n in range(0x30, 0x41)]
    ((version,),) = await upgraded[0].read(lambda c: c.execute("PRAGMA user_version").fetchall())
    assert version == SCHEMA_VERSION
    await asyncio.gather(*(each.aclose() for each in upgraded))


async def test_who_has_an_earlier_layout_open_goes_on(path):
    make_layout_1(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as earlier:
        earlier.execute("PRAGMA journal_mode = WAL")
        send = "INSERT INTO messages (queue, priority, position, body) VALUES ('celery', 0, ?, x'65')"
        earlier.execute(send, (3,))
        db = database(path)
        await db.open()
        earlier.execute(send, (4,))
        assert earlier.execute("UPDATE messages SET receipt = 'r', lease_until = 9 WHERE id = 1").rowcount == 1
        assert earlier.execute("DELETE FROM messages WHERE id = 1 AND receipt = 'r'").rowcount == 1
        with pytest.raises(sqlite3.OperationalError, match="no column named entry"):
            earlier.execute("INSERT INTO dead (entry) VALUES (x'65')")
        assert await db.read(lambda c: c.execute("SELECT count(*) FROM messages").fetchall()) == [(5,)]
        await db.aclose()


async def test_an_upgrade_that_fails_leaves_the_file_as_it_was(path):
    make_layout_1(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DROP TABLE dead")
        before = layout(other)
        db = database(path)
        with pytest.raises(BrokerError, match="no such table: dead"):
            await db.open()
        assert layout(other) == before
        assert other.execute("PRAGMA user_version").fetchall() == [(1,)]


async def test_an_upgrade_by_a_newer_version_meanwhile_is_named(db, path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as newer:
        newer.execute("ALTER TABLE dead RENAME COLUMN content TO contents")
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(BrokerError, match="newer aioretryq has upgraded its layout meanwhile"):
        await db.write(lambda c: bury(c, b"a"))


async def test_a_damaged_file(path):
    db = database(path)
    await db.open()
    await db.aclose()
    raw = bytearray(path.read_bytes())
    raw[100:4096] = b"\xff" * 3996  # the table of tables
    path.write_bytes(raw)
    await refused(path, "damaged")
