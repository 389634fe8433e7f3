"""Redis users who may not do everything: what they are refused is not done by half."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from pathlib import Path

import pytest
from redis_world import open_broker, task_message

from aioretryq import states
from aioretryq.backends.redis import RedisBackend
from aioretryq.brokers.redis_finishing import LARGE as LARGE_DOCUMENT
from aioretryq.brokers.redis_keys import LARGE
from aioretryq.config import Settings
from aioretryq.errors import BrokerError, BrokerUnavailable
from aioretryq.message import Finish, StoredResult
from aioretryq.protocol.result import ResultDocument, encode_result
from contracts.broker_world import LEASE, bodies, message, take, take_one

EXACTLY = ["~celery*", "~unacked", "~unacked_index", "~_kombu.*", "~aioretryq.leases", "~aioretryq.[^l]*"]
"""As somebody may list who names each key: not those of large messages."""

PAGE = Path(__file__).parent.parent.parent / "docs" / "celery.md"


@pytest.fixture
def server(server_of_bytes):
    return server_of_bytes


@pytest.fixture
def restricted(redis_server, server):
    def url(*rights):
        server.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pw", "+@all", *rights)
        return f"redis://limited:pw@127.0.0.1:{redis_server.port}/0"

    yield url
    server.execute_command("ACL", "DELUSER", "limited")


@contextlib.asynccontextmanager
async def joined(url):
    async with open_broker(url) as broker, RedisBackend(url, Settings()) as backend:
        assert broker.joins(backend)
        yield broker, backend


def large(name: str) -> bytes:
    return task_message(name) + b" " * LARGE


def result(task_id: str, state: str, size: int) -> StoredResult:
    document = ResultDocument(task_id=task_id, status=state, result="x" * size)
    return StoredResult(task_id, state, encode_result(document), 60.0)


def left(server):
    return server.keys("aioretryq.leases*") + server.keys("*unacked*")


class TestFinishes:
    @pytest.mark.parametrize("size", [1, LARGE_DOCUMENT])
    @pytest.mark.parametrize("state", [states.RETRY, states.SUCCESS])
    async def test_what_may_not_be_announced_is_done_all_the_same(
        self, restricted, broker, server, caplog, state, size
    ):
        async with joined(restricted("~*")) as (limited, backend):
            ears = server.pubsub()
            ears.psubscribe("*")  # what nobody hears is not announced if it is large
            ears.get_message(timeout=10)
            await broker.send([message("a"), message("b"), message("c")])
            held = await take(limited)
            finishes = [
                Finish(each, (message(f"after {name}"),), result=result(name, state, size))
                for name, each in zip("abc", held, strict=True)
            ]
            assert await limited.finish(finishes[:2]) == [True, True]
            assert await limited.finish(finishes[2:]) == [True]
            stored = await backend.fetch(list("abc"))
            assert stored == [finish.result.document for finish in finishes]
        ears.close()
        assert bodies(await take(broker)) == ["after a", "after b", "after c"]
        told = [record for record in caplog.records if "PUBLISH" in record.getMessage()]
        assert len(told) == 1
        assert "Extend the user's ACL" in caplog.text

    async def test_the_same_over_a_result_that_is_not_final(self, restricted, broker):
        async with joined(restricted("~*")) as (limited, backend):
            await broker.send([message("a")])
            for state in (states.RETRY, states.SUCCESS):
                held = await take_one(limited)
                finish = Finish(held, (message("after"),), result=result("a", state, LARGE_DOCUMENT))
                assert await limited.finish([finish]) == [True]
                assert await backend.fetch(["a"]) == [finish.result.document]
        assert bodies(await take(broker)) == ["after"]

    async def test_what_may_not_be_deleted_is_finished_all_the_same(self, restricted, broker, server, caplog):
        async with joined(restricted("~*", "&*", "-unlink")) as (limited, backend):
            await broker.send([message(large("a")), message(large("b"))])
            a, b = await take(limited)
            assert await limited.extend([a]) == [True]
            kept = result("a", states.SUCCESS, LARGE_DOCUMENT)
            assert await limited.finish([Finish(a, (message("after"),), result=kept), Finish(b)]) == [True, True]
            assert await backend.fetch(["a"]) == [kept.document]
        assert bodies(await take(broker)) == ["after"]
        assert "UNLINK" in caplog.text


class TestLargeMessages:
    @pytest.mark.parametrize("rights", [EXACTLY, ["~*", "-rpush"], ["~*", "-hset"]])
    async def test_what_may_not_be_taken_stays(self, restricted, broker, server, rights):
        await broker.send([message(large("a")), message(large("b"))])
        async with open_broker(restricted(*rights)) as limited:
            for _ in range(2):
                with pytest.raises((BrokerError, BrokerUnavailable), match="ACL"):
                    await limited.claim(["celery"], limit=10)
        assert left(server) == []
        assert [delivery.body for delivery in await take(broker)] == [large("a"), large("b")]

    async def test_small_ones_are_taken_and_recovered_all_the_same(self, restricted, world, caplog):
        holder = await world.connect()
        await holder.send([message(large("a")), message(task_message("b"))])
        await take(holder)
        async with open_broker(restricted(*EXACTLY)) as limited:
            await limited.recover()
            for _ in range(5):
                await world.advance(LEASE / 4)
                await limited.recover()
            recovered = await take(limited)
            assert [json.loads(each.body)["headers"]["id"] for each in recovered] == ["b"]
            assert await limited.extend(recovered) == [True]
            for _ in range(5):
                await world.advance(LEASE / 4)
                await limited.recover()
        assert caplog.text.count("cannot be put back") == 1
        other = await world.connect()
        assert await other.recover() >= 1, "for one who may"
        assert "a" in [json.loads(each.body)["headers"]["id"] for each in await take(other)]

    async def test_their_leases_are_renewed_all_the_same(self, restricted, broker):
        await broker.send([message(large("a"))])
        held = await take_one(broker)
        async with open_broker(restricted(*EXACTLY)) as limited:
            assert await limited.extend([held]) == [True]
            assert await limited.finish([Finish(held)]) == [True]


async def test_the_documented_rights_are_enough(restricted, server, caplog):
    caplog.set_level(logging.WARNING)
    (documented,) = re.findall(r"^ACL SETUSER tasks on >secret (.+)$", PAGE.read_text(), re.MULTILINE)
    async with joined(restricted(*documented.split())) as (limited, backend), backend.listen() as listener:
        await listener.subscribe(["a"])
        await limited.send([message(large("a"))])
        await limited.wait(["celery"], timeout=10)
        held = await take_one(limited)
        assert await limited.extend([held]) == [True]
        kept = result("a", states.SUCCESS, LARGE_DOCUMENT)
        assert await limited.finish([Finish(held, (message("after"),), result=kept)]) == [True]
        async with asyncio.timeout(10):
            assert dict(await listener.receive()) == {"a": kept.document}
        await limited.recover(worker="w", queues=["celery"])
        assert bodies(await take(limited)) == ["after"]
    assert not caplog.records
