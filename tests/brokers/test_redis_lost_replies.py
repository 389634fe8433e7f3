"""Replies that the Redis broker does not get: what was asked once is done once, also when it is asked again."""

from __future__ import annotations

import asyncio
import time

import pytest
from lossy_proxy import arrive, come_late, lose_reply
from redis_world import open_broker, task_message

from aioretryq.backends.redis import RedisBackend
from aioretryq.brokers import redis_answers
from aioretryq.config import Settings
from aioretryq.errors import BrokerError, BrokerUnavailable
from aioretryq.message import DeadEntry, Finish, StoredResult
from aioretryq.protocol.result import ResultDocument, encode_result
from contracts.broker_world import LEASE, bodies, leases_end, message, take, take_one


@pytest.fixture
async def broker(proxy):
    async with open_broker(proxy.url) as broker:
        yield broker


@pytest.fixture
async def other(redis_url):
    """Its replies do not get lost."""
    async with open_broker(redis_url) as broker:
        yield broker


class TestClaim:
    async def test_the_next_claim_gets_what_the_lost_one_took(self, proxy, broker, other, server):
        await broker.send([message(task_message(name)) for name in "abc"])
        await take(broker, limit=0)
        await lose_reply(proxy, take(broker, limit=2))
        assert server.hlen("unacked") == 2
        deliveries = await take(broker)
        assert [delivery.body for delivery in deliveries] == [task_message(name) for name in "abc"]
        assert {(d.redelivered, d.deliveries, d.interruptions) for d in deliveries} == {(False, 1, 0)}
        assert server.hlen("unacked") == server.zcard("unacked_index") == server.zcard("aioretryq.leases") == 3
        assert await broker.finish([Finish(delivery) for delivery in deliveries]) == [True] * 3
        assert server.exists("unacked", "unacked_index", "aioretryq.leases") == 0

    async def test_queues_and_priorities_are_kept(self, proxy, broker, server):
        sent = [
            message("b9", "b", priority=9),
            message("a0", "a"),
            message("a3", "a", priority=3),
            message("b0", "b"),
        ]
        await broker.send([*sent, message("c", 'with "," quotes')])
        await take(broker, limit=0)
        await lose_reply(proxy, take(broker, "a", "b", 'with "," quotes'))
        deliveries = await take(broker, "b", "a", 'with "," quotes')
        assert [(d.body, d.queue, d.priority) for d in deliveries] == [
            (b"b0", "b", 0),
            (b"a0", "a", 0),
            (b"c", 'with "," quotes', 0),
            (b"a3", "a", 3),
            (b"b9", "b", 9),
        ]

    async def test_of_several_claims_at_once(self, proxy, redis_url, server):
        async with open_broker(proxy.url, redis_max_connections=5) as broker:
            await broker.send([message(str(n)) for n in range(50)])
            await take(broker, limit=0)
            await lose_reply(proxy, *(take(broker, limit=10) for _ in range(4)))
            assert server.hlen("unacked") == 40
            assert sorted(map(int, bodies(await take(broker)))) == list(range(50))

    async def test_a_claim_that_comes_late_takes_nothing(self, proxy, broker, other, server):
        await broker.send([message(name) for name in "abc"])
        await take(broker, limit=0)
        gate = await come_late(proxy, take(broker))
        assert bodies(await take(broker, limit=1)) == ["a"]
        await arrive(gate, server)
        assert server.hlen("unacked") == 1
        assert bodies(await take(other)) == ["b", "c"]

    async def test_taking_back_is_tried_until_it_is_done(self, proxy, broker, redis_server, server):
        await broker.send([message(name) for name in "abc"])
        await take(broker, limit=0)
        await lose_reply(proxy, take(broker, limit=1))
        await lose_reply(proxy, take(broker, limit=1))  # what is lost this time is the reply of taking back
        gate = await come_late(proxy, take(broker, limit=1))
        assert bodies(await take(broker, limit=2)) == ["a", "b"]
        await arrive(gate, server)
        assert bodies(await take(broker)) == ["c"]
        assert server.hlen("unacked") == 3

    async def test_taking_back_that_comes_late_makes_nothing_valid_again(self, proxy, broker, other, server):
        await broker.send([message(name) for name in "abc"])
        await take(broker, limit=0)
        await lose_reply(proxy, take(broker, limit=1))
        taking_back = await come_late(proxy, take(broker, limit=1))
        assert bodies(await take(broker, limit=1)) == ["a"]
        claim = await come_late(proxy, take(broker, limit=1))
        assert bodies(await take(broker, limit=1)) == ["b"]
        await arrive(taking_back, server)
        await arrive(claim, server)
        assert bodies(await take(other)) == ["c"]

    async def test_a_cancelled_claim_holds_nothing_back(self, broker, server):
        await broker.send([message("a"), message("b")])
        cancelled = 0
        for steps in range(60):
            claiming = asyncio.create_task(take(broker, limit=1))
            for _ in range(steps):
                await asyncio.sleep(0)
            claiming.cancel()
            (outcome,) = await asyncio.gather(claiming, return_exceptions=True)
            cancelled += isinstance(outcome, asyncio.CancelledError)
            deliveries = outcome if isinstance(outcome, list) else []
            deliveries += await take(broker)
            assert bodies(deliveries) == ["a", "b"]
            assert server.hlen("unacked") == 2
            await broker.requeue(deliveries)
        assert cancelled > 5

    async def test_what_others_have_meanwhile_is_theirs(self, proxy, broker, other, world, server):
        await broker.send([message("a")])
        await take(broker, limit=0)
        await lose_reply(proxy, take(broker))
        await leases_end(world, other)
        assert await other.recover() == 1
        held = await take_one(other)
        assert await take(broker) == []
        assert await other.finish([Finish(held)]) == [True]

    async def test_a_refused_claim_took_nothing_and_hinders_no_other(self, broker, server):
        server.set("mail", "no list")
        await broker.send([message("a")])
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await take(broker, "celery", "mail")
        assert bodies(await take(broker)) == ["a"]
        assert server.keys("aioretryq.void.*") == []

    async def test_on_a_full_server(self, proxy, broker, server):
        await broker.send([message("a"), message("b")])
        await take(broker, limit=0)
        await lose_reply(proxy, take(broker, limit=1))
        server.config_set("maxmemory", 1)
        try:
            assert bodies(await take(broker)) == ["a", "b"]
        finally:
            server.config_set("maxmemory", 0)

    async def test_what_is_remembered_expires(self, proxy, broker, server):
        await broker.send([message("a")])
        await lose_reply(proxy, take(broker))
        assert bodies(await take(broker)) == ["a"]
        (void,) = server.keys("aioretryq.void.*")
        assert 500 < server.ttl(void) <= 600


class TestFinish:
    async def test_it_is_answered_as_the_first_time(self, proxy, broker, server):
        await broker.send([message(name) for name in "abc"])
        a, b, c = await take(broker)
        await broker.requeue([b])  # another holder would do as well
        entry = DeadEntry("0001-x", b"dead")
        finishes = [Finish(a, (message("next", "mail"),)), Finish(b, (message("no", "mail"),)), Finish(c, dead=entry)]
        for _ in range(3):
            await lose_reply(proxy, broker.finish(finishes))
        assert await broker.finish(finishes) == [True, False, True]
        assert bodies(await take(broker, "mail")) == ["next"]
        assert await broker.dead() == [entry]
        assert bodies(await take(broker)) == ["b"]

    async def test_one_that_comes_late_changes_nothing(self, proxy, broker, server):
        await broker.send([message("a"), message("b")])
        a, b = await take(broker)
        await broker.finish([Finish(b)])
        finishes = [Finish(a, (message("next", "mail"),))]
        gate = await come_late(proxy, broker.finish(finishes))
        assert await broker.finish(finishes) == [True]
        await arrive(gate, server)
        assert bodies(await take(broker, "mail")) == ["next"]
        assert await take(broker) == []

    async def test_batches_do_not_disturb_each_other(self, proxy, redis_url, server):
        async with open_broker(proxy.url, redis_max_connections=5) as broker:
            await broker.send([message(str(n)) for n in range(30)])
            deliveries = await take(broker)
            batches = [
                [Finish(d, (message("next", "mail"),)) for d in deliveries[n : n + 5]] for n in range(0, 30, 5)
            ]
            await broker.requeue([deliveries[0]])
            await lose_reply(proxy, *(broker.finish(batch) for batch in batches[:3]))
            assert await broker.finish(batches[3]) == [True] * 5
            assert await asyncio.gather(*(broker.finish(batch) for batch in reversed(batches))) == [
                [True] * 5,
                [True] * 5,
                [False] * 5,  # done before, and answered
                [True] * 5,
                [True] * 5,
                [False, True, True, True, True],
            ]
            assert len(await take(broker, "mail")) == 29

    async def test_little_is_remembered_and_not_for_long(self, proxy, broker, server):
        await broker.send([message(str(n)) for n in range(50)])
        for delivery in await take(broker):
            assert await broker.finish([Finish(delivery)]) == [True]
            (key,) = server.keys("aioretryq.finished.*")
            assert server.hlen(key) == 1
            assert 21500 < server.ttl(key) <= 21600

    async def test_what_nobody_asks_for_any_more_is_forgotten(self, proxy, broker, server, monkeypatch):
        monkeypatch.setattr(redis_answers, "REMEMBERED", 2)
        await broker.send([message(str(n)) for n in range(6)])
        deliveries = await take(broker)
        for delivery in deliveries[:5]:
            await lose_reply(proxy, broker.finish([Finish(delivery)]))
        assert await broker.finish([Finish(deliveries[5])]) == [True]
        (key,) = server.keys("aioretryq.finished.*")
        assert server.hlen(key) == 3
        assert await broker.finish([Finish(deliveries[4])]) == [True]

    async def test_an_answer_that_arrived_is_not_given_again(self, broker):
        await broker.send([message("a")])
        finishes = [Finish(await take_one(broker))]
        assert await broker.finish(finishes) == [True]
        assert await broker.finish(finishes) == [False]


class TestFinishWithResults:
    """Broker and result backend are in one place, and results travel with the acknowledgement."""

    @pytest.fixture
    def heard(self, server):
        """Counts announcements: the server keeps them until they are read."""
        listener = server.pubsub(ignore_subscribe_messages=True)
        listener.psubscribe("celery-task-meta-*")
        listener.get_message(timeout=10)

        def read():
            server.publish("celery-task-meta-end", "")
            told = []
            while (message := listener.get_message(timeout=10))["channel"] != "celery-task-meta-end":
                told.append(message["data"])
            return told

        yield read
        listener.close()

    @pytest.fixture
    def joined(self, proxy, broker):
        assert broker.joins(RedisBackend(proxy.url, Settings()))
        return broker

    @staticmethod
    def result(task_id, value="ours"):
        document = encode_result(ResultDocument(task_id=task_id, status="SUCCESS", result=value))
        return StoredResult(task_id, "SUCCESS", document, 60.0)

    async def test_what_is_repeated_is_stored_and_announced_once(self, proxy, joined, server, heard):
        await joined.send([message(name) for name in "abc"])
        a, b, c = await take(joined)
        await joined.requeue([b])
        results = {name: self.result(name) for name in "abc"}
        finishes = [
            Finish(a, (message("next", "mail"),), result=results["a"]),
            Finish(b, result=results["b"]),
            Finish(c, result=results["c"]),
        ]
        for _ in range(3):
            await lose_reply(proxy, joined.finish(finishes))
        assert await joined.finish(finishes) == [True, False, True]
        assert heard() == [results[name].document.decode() for name in "ac"]
        assert server.keys("celery-task-meta-b") == []
        assert bodies(await take(joined, "mail")) == ["next"]

    async def test_one_that_comes_late_stores_nothing_over_what_others_did(self, proxy, joined, other, server, heard):
        await joined.send([message("a")])
        finishes = [Finish(await take_one(joined), result=self.result("a"))]
        gate = await come_late(proxy, joined.finish(finishes))
        await other.requeue([finish.delivery for finish in finishes])  # as a sweep would, once the lease has ended
        assert other.joins(RedisBackend(other.display_url, Settings()))
        theirs = self.result("a", "theirs")
        assert await other.finish([Finish(await take_one(other), result=theirs)]) == [True]
        await arrive(gate, server)
        assert await joined.finish(finishes) == [False]
        assert server.get("celery-task-meta-a") == theirs.document.decode()
        assert heard() == [theirs.document.decode()]


class TestOthers:
    async def test_exhume(self, proxy, broker, server):
        entries = [DeadEntry(f"000{n}-x", b"dead") for n in range(3)]
        await broker.bury(entries)
        taken = [("0000-x", message("back")), ("none", message("no")), ("0002-x", None)]
        await take(broker, limit=0)
        await lose_reply(proxy, broker.exhume(taken))
        assert await broker.exhume(taken) == [True, False, True]
        assert await broker.exhume(taken) == [False] * 3
        assert bodies(await take(broker)) == ["back"]
        assert await broker.dead() == [entries[1]]

    async def test_send_bury_requeue_and_extend(self, proxy, broker, other, server):
        sent, entry = [message(task_message("a")), message("b")], DeadEntry("0001-x", b"dead")
        await broker.send([message("first", "mail")])
        await take_one(broker, "mail")
        for operation in (lambda: broker.send(sent), lambda: broker.bury([entry])):
            gate = await come_late(proxy, operation())
            await operation()
            await arrive(gate, server)
        deliveries = await take(broker)
        assert [delivery.body for delivery in deliveries] == [task_message("a"), b"b"]
        assert await broker.dead() == [entry]
        await lose_reply(proxy, broker.extend(deliveries))
        assert await broker.extend(deliveries) == [True, True]
        await lose_reply(proxy, broker.requeue(deliveries))
        again = await take_one(other)
        await broker.requeue(deliveries)
        assert (again.deliveries, again.interruptions) == (1, 1)
        assert bodies(await take(other)) == ["b"]

    async def test_a_sweep_that_was_held_up_takes_nothing_back(self, proxy, broker, world, other, server):
        # It found what had ended, then the server froze; when it goes on, first those who live renew.
        await broker.send([message("a")])
        held = await take_one(other)
        await leases_end(world, broker)
        gate = proxy.hold_requests(containing=b"unacked_index")
        with pytest.raises(BrokerUnavailable):
            await broker.recover()
        await world.advance(LEASE * 0.6)
        await arrive(gate, server)
        assert await other.extend([held]) == [True]
        assert await other.finish([Finish(held)]) == [True]

    @pytest.mark.parametrize("key", ["unacked_index", "aioretryq.leases"])
    async def test_what_was_taken_anew_is_not_put_back(self, proxy, broker, world, server, key):
        # Between looking for what Celery workers left and putting it back: the tag is the same each time.
        await leases_end(world, broker)
        server.hset("unacked", "tag", '[{}, "", "celery"]')
        server.zadd("unacked_index", {"tag": 1})
        gate = proxy.hold_requests(containing=b"unacked_index\r\n$16\r\naioretryq.leases")
        with pytest.raises(BrokerUnavailable):
            await broker.recover()
        server.zadd(key, {"tag": time.time() + 5})
        await arrive(gate, server)
        assert server.llen("celery") == 0
        assert server.hlen("unacked") == 1

    async def test_a_sweep_held_up_within_the_quiet_time(self, proxy, broker, world, other, server):
        await broker.send([message("a")])
        held = await take_one(other)
        await leases_end(world, broker)
        gate = proxy.hold_requests(containing=b"unacked_index")
        with pytest.raises(BrokerUnavailable):
            await broker.recover()
        await world.advance(LEASE * 0.6)
        assert await other.recover() == 0
        await arrive(gate, server)
        assert await other.finish([Finish(held)]) == [True]
