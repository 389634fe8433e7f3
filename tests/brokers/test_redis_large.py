"""Large messages and results: the server's scripts touch them as seldom as can be, and nothing else is different."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
import pytest_asyncio
import redis
from lossy_proxy import LossyProxy, lose_reply
from redis_world import open_broker, task_message

from aioretryq import states
from aioretryq.backends.redis import RedisBackend
from aioretryq.brokers.redis_finishing import LARGE as LARGE_DOCUMENT
from aioretryq.brokers.redis_keys import LARGE
from aioretryq.config import Settings
from aioretryq.errors import BrokerError, BrokerUnavailable
from aioretryq.message import Finish, Outgoing, StoredResult
from aioretryq.protocol.result import ResultDocument, encode_result
from contracts.broker_world import LEASE, message, take, take_one
from redis_server import RedisServer

KEYS = "aioretryq.leases.*"


def large(name: str) -> bytes:
    return task_message(name) + b" " * LARGE


def result(task_id: str, state: str = states.SUCCESS, ttl: float | None = 60.0) -> StoredResult:
    document = ResultDocument(task_id=task_id, status=state, result="x" * LARGE_DOCUMENT)
    return StoredResult(task_id, state, encode_result(document), ttl)


@pytest.fixture
def server(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        client.config_resetstat()
        yield client


def all_held(server):
    return server.keys("*unacked*") + server.keys("aioretryq.leases*")


class TestMessages:
    async def test_they_come_in_order_among_others(self, broker, server):
        sent = [large("a"), task_message("b"), large("c"), task_message("d")]
        await broker.send([message(body) for body in sent])
        deliveries = await take(broker)
        assert [delivery.body for delivery in deliveries] == sent
        assert len(server.keys(KEYS)) == 2
        assert json.loads(server.hget("unacked", deliveries[0].tag)) == [None, "", "celery"]
        assert server.zcard("aioretryq.leases") == server.hlen("unacked") == 4
        assert server.zcard("unacked_index") == 2, "kombu would fail on an entry without its message"
        assert await broker.finish([Finish(delivery) for delivery in deliveries]) == [True] * 4
        assert all_held(server) == []

    async def test_a_claim_stops_after_a_megabyte(self, broker):
        await broker.send([message(task_message(str(n)) + b" " * 2**18) for n in range(8)])
        assert len(await take(broker)) == 4
        assert len(await take(broker)) == 4

    async def test_what_is_held_for_longer_is_an_entry_that_celery_can_restore(self, broker, server):
        await broker.send([message(large("a"), 'ma"il'), message(b"no json" + b" " * LARGE)])
        deliveries = [await take_one(broker, 'ma"il'), await take_one(broker)]
        for _ in range(2):
            assert await broker.extend(deliveries) == [True, True]
        kept = server.hgetall("unacked")
        assert json.loads(kept[deliveries[0].tag.encode()]) == [json.loads(large("a")), "", 'ma"il']
        assert kept[deliveries[1].tag.encode()] == b"[no json" + b" " * LARGE + b',"","celery"]'
        assert server.zrange("unacked_index", 0, -1) == [deliveries[0].tag.encode()]
        assert server.keys(KEYS) == []
        assert await broker.finish([Finish(delivery) for delivery in deliveries]) == [True, True]
        assert all_held(server) == []

    @pytest.mark.parametrize("renewed", [False, True])
    async def test_handed_back(self, broker, server, renewed):
        await broker.send([message(large("a")), message(large("b"))])
        deliveries = await take(broker)
        if renewed:
            await broker.extend(deliveries)
        await broker.requeue(deliveries)
        assert all_held(server) == []
        again = await take(broker)
        assert [json.loads(delivery.body)["headers"]["id"] for delivery in again] == ["a", "b"]
        assert {(delivery.deliveries, delivery.interruptions) for delivery in again} == {(1, 1)}

    @pytest.mark.parametrize("renewed", [False, True])
    async def test_of_a_worker_that_died(self, world, server, renewed):
        broker = await world.connect()
        await broker.send([message(large("a")), message(large("b"))])
        deliveries = await take(broker)
        if renewed:
            await broker.extend(deliveries)
        other = await world.connect()
        await other.recover()
        for _ in range(5):
            await world.advance(LEASE / 4)
            await other.recover()
        again = await take(other)
        assert [json.loads(delivery.body)["headers"]["id"] for delivery in again] == ["a", "b"]
        assert {(delivery.redelivered, delivery.deliveries) for delivery in again} == {(True, 2)}
        assert await broker.finish([Finish(delivery) for delivery in deliveries]) == [False, False]
        assert await other.finish([Finish(delivery) for delivery in again]) == [True, True]
        assert all_held(server) == []

    async def test_one_that_is_finished_while_recovery_looks(self, world, redis_server, server, caplog):
        broker = await world.connect()
        await broker.send([message(large("a"))])
        held = await take_one(broker)
        async with LossyProxy(redis_server.port) as proxy, open_broker(proxy.url) as other:
            await other.recover()
            for _ in range(3):
                await world.advance(LEASE / 4)
                assert await other.recover() == 0
            await world.advance(LEASE / 4)
            here, go = proxy.halt(b"LINDEX")
            recovering = asyncio.create_task(other.recover())
            async with asyncio.timeout(10):
                await here.wait()
            assert await broker.finish([Finish(held)]) == [True]
            go.set()
            assert await recovering == 0
        assert not caplog.records
        assert all_held(server) == []

    async def test_what_is_renewed_is_read_once_and_not_all_at_a_time(self, broker, server):
        body = task_message() + b" " * 2**22
        await broker.send([message(body) for _ in range(6)])
        deliveries = [await take_one(broker) for _ in range(6)]
        left = []
        for _ in range(4):
            assert await broker.extend(deliveries) == [True] * 6
            left.append(len(server.keys(KEYS)))
        assert left == [4, 2, 0, 0]
        assert server.info("commandstats")["cmdstat_hget"]["calls"] == 6
        assert {json.loads(entry)[1] for entry in server.hvals("unacked")} == {""}
        assert server.zcard("unacked_index") == 6

    async def test_a_claim_whose_reply_was_lost(self, redis_server, server):
        sent = [large("a"), task_message("b"), large("c")]
        async with LossyProxy(redis_server.port) as proxy, open_broker(proxy.url) as broker:
            await broker.send([message(body) for body in sent])
            await take(broker, limit=0)
            await lose_reply(proxy, take(broker))
            assert server.hlen("unacked") == 3
            deliveries = await take(broker)
        assert [delivery.body for delivery in deliveries] == sent
        assert len(server.keys(KEYS)) == 2

    async def test_a_full_server_lets_take_and_renew(self, broker, server):
        await broker.send([message(large("a"))])
        server.config_set("maxmemory", 1)
        try:
            held = await take_one(broker)
            assert await broker.extend([held]) == [True]
        finally:
            server.config_set("maxmemory", 0)
        assert held.body == large("a")


class TestResults:
    @pytest_asyncio.fixture
    async def backend(self, redis_url, broker):
        async with RedisBackend(redis_url, Settings()) as backend:
            assert broker.joins(backend)
            yield backend

    async def taken(self, broker, *names):
        await broker.send([Outgoing("celery", name.encode(), f"tag of {name}") for name in names])
        return await take(broker)

    def parcels(self, server):
        return server.keys("aioretryq.finished.*:*")

    @pytest.mark.parametrize("pattern", [False, True])
    async def test_stored_and_announced(self, broker, backend, server, pattern):
        a, b, c = await self.taken(broker, "a", "b", "c")
        small = StoredResult("c", states.SUCCESS, b'{"status": "SUCCESS"}', 60.0)
        with server.pubsub() as ears:
            if pattern:
                ears.psubscribe("celery-task-meta-*")
            else:
                ears.subscribe(*map(backend.key, "abc"))
            while ears.get_message(timeout=0.1):
                pass
            done = await broker.finish(
                [Finish(a, result=result("a")), Finish(c, result=small), Finish(b, result=result("b", ttl=None))]
            )
            heard = [await asyncio.to_thread(ears.get_message, timeout=10) for _ in range(3)]
        assert done == [True] * 3
        assert [each["data"] for each in heard] == [result("a").document, small.document, result("b").document]
        assert await backend.fetch(["a", "b", "c"]) == [result("a").document, result("b").document, small.document]
        assert 0 < server.pttl(backend.key("a")) <= 60_000
        assert server.pttl(backend.key("b")) == -1
        assert self.parcels(server) == []

    async def test_of_a_lost_lease_nothing_is_left(self, broker, backend, server):
        (a,) = await self.taken(broker, "a")
        await broker.requeue([a])
        assert await broker.finish([Finish(a, result=result("a"))]) == [False]
        assert await backend.fetch(["a"]) == [None]
        assert self.parcels(server) == []

    @pytest.mark.parametrize(("before", "stays"), [(states.SUCCESS, True), (states.RETRY, False)])
    async def test_what_is_final_stays(self, broker, backend, server, before, stays):
        await backend.store([result("a", before, ttl=None)])
        (a,) = await self.taken(broker, "a")
        assert await broker.finish([Finish(a, result=result("a", states.FAILURE))]) == [True]
        expected = result("a", before if stays else states.FAILURE)
        assert await backend.fetch(["a"]) == [expected.document]
        assert (server.pttl(backend.key("a")) == -1) == stays
        assert self.parcels(server) == []

    async def test_a_batch_that_comes_again_is_answered_as_the_first_time(self, redis_server, server):
        async with contextlib.AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(LossyProxy(redis_server.port))
            broker = await stack.enter_async_context(open_broker(proxy.url))
            backend = await stack.enter_async_context(RedisBackend(proxy.url, Settings()))
            assert broker.joins(backend)
            (a,) = await self.taken(broker, "a")
            finishes = [Finish(a, result=result("a"))]
            await lose_reply(proxy, broker.finish(finishes))
            await lose_reply(proxy, broker.finish(finishes))
            assert await broker.finish(finishes) == [True]
        assert server.get(backend.key("a")) == result("a").document
        assert self.parcels(server) == []

    async def test_what_may_not_be_stored_is_not_acknowledged(self, redis_server, broker, server):
        server.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pw", "~*", "&*", "+@all", "-set")
        url = f"redis://limited:pw@127.0.0.1:{redis_server.port}/0"
        try:
            async with open_broker(url) as limited, RedisBackend(url, Settings()) as backend:
                assert limited.joins(backend)
                await broker.send([message("a")])
                held = await take_one(limited)
                with pytest.raises(BrokerError, match="ACL"):
                    await limited.finish([Finish(held, result=result("a"))])
                assert await limited.extend([held]) == [True]
        finally:
            server.execute_command("ACL", "DELUSER", "limited")

    async def test_a_full_server_refuses_and_nothing_is_done(self, broker, backend, server):
        (a,) = await self.taken(broker, "a")
        server.config_set("maxmemory", 1)
        try:
            with pytest.raises(BrokerUnavailable, match="maxmemory") as caught:
                await broker.finish([Finish(a, result=result("a"))])
        finally:
            server.config_set("maxmemory", 0)
        assert not caught.value.maybe_done
        assert await backend.fetch(["a"]) == [None]
        assert await broker.finish([Finish(a, result=result("a"))]) == [True]


async def test_a_replica_that_comes_back_hears_of_the_results_it_missed():
    with contextlib.closing(RedisServer()) as master, contextlib.closing(RedisServer()) as replica:
        master.start("--repl-diskless-sync-delay", "0")
        replica.start("--replicaof", "127.0.0.1", str(master.port))
        with redis.Redis.from_url(master.url) as here, redis.Redis.from_url(replica.url) as there:
            async with asyncio.timeout(10):
                while there.info("replication")["master_link_status"] != "up":
                    await asyncio.sleep(0.01)
            async with open_broker(master.url) as broker, RedisBackend(master.url, Settings()) as backend:
                assert broker.joins(backend)
                await broker.send([message("a")])
                held = await take_one(broker)
                with there.pubsub() as ears:
                    ears.subscribe(backend.key("a"))
                    ears.get_message(timeout=10)
                    replica.freeze()
                    here.client_kill_filter(_type="replica")
                    assert here.info("replication")["connected_slaves"] == 0
                    assert await broker.finish([Finish(held, result=result("a"))]) == [True]
                    replica.thaw()
                    heard = await asyncio.to_thread(ears.get_message, timeout=10)
    assert heard["data"] == result("a").document
