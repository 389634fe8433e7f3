"""The Redis broker keeps the contract and kombu's layout, so that Celery may share its queues."""

from __future__ import annotations

import asyncio
import json
import time

import celery
import kombu
import pytest
import redis
from msgspec.structs import replace
from redis_world import open_broker, task_message

from aioretryq.errors import BrokerError, ConfigError, NotOpenError
from aioretryq.message import Finish
from aioretryq.protocol import envelope as envelopes
from contracts.broker_contract import BrokerContract
from contracts.broker_world import LEASE, bodies, dead_entry, envelope, leases_end, message, take, take_one

SEP = "\x06\x16"


class TestContract(BrokerContract):
    @pytest.fixture
    async def world(self, world):
        return world

    async def test_a_tag_is_forgotten_after_a_minute(self, world, broker, server):
        sent = message("a")
        await broker.send([sent])
        await world.advance(61)
        await broker.send([message("b")])
        assert server.zcard("aioretryq.sent") == 1
        await broker.send([sent])
        assert bodies(await take(broker)) == ["a", "b", "a"]


class TestLayout:
    async def test_ten_priorities_in_four_lists(self, broker, server):
        await broker.send([message(str(p), priority=p) for p in range(10)])
        lists = ["celery", f"celery{SEP}3", f"celery{SEP}6", f"celery{SEP}9"]
        assert [server.lrange(key, 0, -1) for key in lists] == [list("210"), list("543"), list("876"), ["9"]]
        assert bodies(await take(broker)) == [str(p) for p in range(10)]

    async def test_what_is_claimed_stands_in_unacked(self, broker, server):
        payload = task_message("a", 'ma"il', 4)
        await broker.send([message(payload, 'ma"il', priority=4)])
        delivery = await take_one(broker, 'ma"il')
        assert server.llen(f'ma"il{SEP}3') == 0
        assert delivery.tag.startswith("aioretryq:")
        value = server.hget("unacked", delivery.tag)
        assert value == f'[{payload.decode()},"","ma\\"il"]'
        assert json.loads(value)[1:] == ["", 'ma"il']
        assert server.zscore("unacked_index", delivery.tag) == pytest.approx(time.time(), abs=5)
        assert server.zscore("aioretryq.leases", delivery.tag) == pytest.approx(time.time() + LEASE, abs=5)

    async def test_only_the_last_minutes_tags_and_bindings_remain(self, broker, server):
        await broker.send([message(task_message()), message("x", due=time.time() - 1)])
        deliveries = await take(broker)
        assert await broker.finish([Finish(delivery) for delivery in deliveries]) == [True, True]
        await broker.recover()
        (finished,) = server.keys("aioretryq.finished.*")
        assert 0 < server.ttl(finished) <= 21600
        assert server.hlen(finished) == 1
        assert 0 < server.ttl("aioretryq.sweep") <= 8 * LEASE
        bindings = ["_kombu.binding.celery", "_kombu.binding_permanent.celery"]
        assert sorted(server.keys()) == [*bindings, finished, "aioretryq.sent", "aioretryq.sweep"]

    async def test_bindings_are_kombus(self, broker, server):
        await broker.claim(["mail"], limit=1)
        for key in ("_kombu.binding.mail", "_kombu.binding_permanent.mail"):
            assert server.smembers(key) == {f"mail{SEP}{SEP}mail"}
        with kombu.Connection(broker.display_url) as connection:
            connection.default_channel.exchange_declare("mail", type="direct")
            assert connection.default_channel.get_table("mail") == [("mail", "", "mail")]

    async def test_parked_messages(self, broker, server):
        due = time.time() + 60
        parked = message("body", "mail", priority=4, due=due)
        await broker.send([parked])
        member = f"3:{len(parked.tag)}:{parked.tag}body"
        assert server.zrange("aioretryq.schedule.mail", 0, -1, withscores=True) == [(member, pytest.approx(due))]

    async def test_dead_letters(self, broker, server):
        await broker.send([message(task_message())])
        entry = dead_entry(time.time())
        await broker.finish([Finish(await take_one(broker), dead=entry)])
        assert server.hgetall("aioretryq.dead") == {entry.id: "dead"}
        assert server.zrange("aioretryq.dead.index", 0, -1, withscores=True) == [(entry.id, 0)]
        assert await broker.exhume([(entry.id, message("back"))]) == [True]
        assert server.exists("aioretryq.dead", "aioretryq.dead.index") == 0
        assert server.lrange("celery", 0, -1) == ["back"]

    async def test_every_key_has_the_prefix(self, redis_url, server):
        options = {"global_keyprefix": "app:"}
        async with open_broker(redis_url, broker_transport_options=options) as broker:
            await broker.send([message(task_message()), message("b", priority=9), message("c", due=time.time() + 60)])
            first, second = await take(broker)
            await broker.finish([Finish(first, dead=dead_entry(time.time()))])
            await broker.recover()
            await broker.revoke(["t"], ttl=60)
            assert await broker.extend([second]) == [True]
            assert await broker.depth(["celery"]) == {"celery": 1}
        assert [key for key in server.scan_iter() if not key.startswith("app:")] == []

    async def test_revocations_leave_nothing_behind(self, world, broker, server):
        await broker.revoke(["short"], ttl=10)
        await broker.revoke(["long"], ttl=100)
        assert 10 < server.ttl("aioretryq.revocations") <= 100
        assert 10 < server.ttl("aioretryq.revoked") <= 100
        await world.advance(11)
        await broker.revoke(["other"], ttl=5)
        assert server.zrange("aioretryq.revocations", 0, -1) == ["long", "other"]
        assert server.ttl("aioretryq.revoked") > 10

    async def test_revocations_are_heard_again_after_the_server_lost_everything(self, broker, server):
        await broker.revoke(["before"], ttl=60)
        assert (await broker.claim(["celery"], limit=0)).revoked == ["before"]
        server.flushall()
        await broker.revoke(["after"], ttl=60)
        assert (await broker.claim(["celery"], limit=0)).revoked == ["after"]


class TestCounts:
    async def test_ordinary_messages_are_not_touched(self, broker, server):
        body = task_message()
        await broker.send([message(body), message(b"no message, redelivered"), message(body, due=time.time() + 60)])
        assert server.lrange("celery", 0, -1) == ["no message, redelivered", body.decode()]
        ((member),) = server.zrange("aioretryq.schedule.celery", 0, -1)
        assert member.endswith(body.decode())

    async def test_other_marks_and_the_rest_of_the_message_are_kept(self, broker):
        body = envelopes.mark(task_message(), unknown_since=1.5, offers=2, parked=1)
        counted = envelopes.mark_redelivered(body, deliveries=3, interruptions=4)
        await broker.send([message(counted), replace(message(counted), interruptions=1)])
        new, again = await take(broker)
        assert envelopes.decode(new.body) == envelopes.decode(body)
        assert envelopes.marks(again.body) == envelopes.marks(body) | {"deliveries": 0, "interruptions": 1}
        assert (again.deliveries, again.interruptions, again.redelivered) == (1, 1, True)

    async def test_marks_alone_do_not_count(self, broker):
        body = envelopes.mark(task_message(), deliveries=3, interruptions=4)  # nothing tells that it was redelivered
        await broker.send([message(body)])
        assert envelopes.marks((await take_one(broker)).body) == {}


class TestRecovery:
    async def test_a_long_list_keeps_its_order(self, world, broker):
        await broker.send([message(str(n)) for n in range(250)])
        await take(broker, limit=240)
        await leases_end(world, broker)
        assert await broker.recover() == 240
        assert bodies(await take(broker, limit=250)) == [str(n) for n in range(250)]

    @pytest.mark.parametrize("value", ["", "garbage", "[garbage]", '["",7]', '[,"",7]', '[{},"","q"', None])
    async def test_unreadable_entries_do_not_stop_the_others(self, world, broker, server, value):
        await broker.send([message("a"), message("b")])
        bad, _ = await take(broker)
        if value is None:
            server.hdel("unacked", bad.tag)
        else:
            server.hset("unacked", bad.tag, value)
        server.hset("unacked", mapping={"no tag of ours": '[{},"","q"]', "aioretryq:x:1": '[{},"","q"]'})
        await leases_end(world, broker)
        server.zadd("aioretryq.leases", {"no tag of ours": 1, "aioretryq:x:1": 1})
        assert await broker.recover() == 1
        assert bodies(await take(broker)) == ["b"]
        assert server.zcard("aioretryq.leases") == 1
        assert await broker.recover() == 0
        assert server.hget("unacked", bad.tag) == value

    async def test_a_visibility_timeout_below_the_lease_cannot_take_what_is_held(self, redis_url, server):
        # Celery workers restore what stands there for longer than their visibility timeout.
        async with open_broker(redis_url, broker_transport_options={"visibility_timeout": 10}) as broker:
            await broker.send([message(task_message())])
            delivery = await take_one(broker)
            assert server.zscore("unacked_index", delivery.tag) == pytest.approx(time.time() + LEASE - 10, abs=5)
            server.zadd("unacked_index", {delivery.tag: 1})
            await broker.extend([delivery])
            assert server.zscore("unacked_index", delivery.tag) == pytest.approx(time.time() + LEASE - 10, abs=5)

    def test_a_visibility_timeout_is_a_number(self):
        with pytest.raises(ConfigError, match="visibility_timeout"):
            open_broker("redis://localhost", broker_transport_options={"visibility_timeout": "1h"})


class TestCelery:
    """With the real kombu and Celery on the other side."""

    async def test_claims_what_celery_sent(self, redis_url, broker):
        def send() -> str:
            with celery.Celery(broker=redis_url, set_as_current=False) as app:
                return app.send_task("tasks.add", (1, 2), queue="mail", priority=5).id

        task_id = await asyncio.to_thread(send)
        delivery = await take_one(broker, "mail")
        assert (delivery.priority, delivery.redelivered) == (3, False)
        assert envelopes.decode(delivery.body).headers["id"] == task_id

    async def test_celery_reads_what_we_sent(self, redis_url, broker):
        await broker.send([message(task_message("t1", priority=6), priority=6)])

        def receive() -> tuple[object, dict[str, object]]:
            with kombu.Connection(redis_url) as connection, connection.SimpleQueue("celery") as queue:
                received = queue.get(timeout=10)
                received.ack()
                return received.payload, received.headers

        payload, headers = await asyncio.to_thread(receive)
        assert payload == [[1, 2], {}, {}]
        assert headers["id"] == "t1"

    @pytest.mark.parametrize("priority", [0, 7])
    async def test_celery_restores_what_we_hold(self, redis_url, broker, server, priority):
        await broker.send([message(task_message("t1", priority=priority), priority=priority)])
        delivery = await take_one(broker)
        with kombu.Connection(redis_url) as connection:
            connection.default_channel.qos.restore_by_tag(delivery.tag)
        assert server.exists("unacked", "unacked_index") == 0
        # Ours is stale then: nothing of it counts any more.
        assert await broker.extend([delivery]) == [False]
        assert await broker.finish([Finish(delivery, (message("follow-up"),))]) == [False]
        await broker.requeue([delivery])
        again = await take_one(broker)
        assert (again.redelivered, envelopes.decode(again.body).headers["id"]) == (True, "t1")
        assert await broker.finish([Finish(again)]) == [True]
        assert await take(broker) == []

    async def test_celerys_sweep_survives_what_is_no_message(self, redis_url, broker, server):
        server.lpush("celery", "no json", task_message("t1"))
        deliveries = await take(broker)
        assert [delivery.body for delivery in deliveries] == [b"no json", task_message("t1")]
        server.zadd("unacked_index", {delivery.tag: 1 for delivery in deliveries}, xx=True)
        with kombu.Connection(redis_url) as connection:
            connection.default_channel.qos.restore_visible(interval=1)
        assert await broker.extend(deliveries) == [True, False]

    async def test_a_message_that_celery_restored_is_redelivered(self, redis_url, broker):
        await broker.send([message(task_message("t1"))])

        def give_up() -> None:
            with kombu.Connection(redis_url) as connection, connection.SimpleQueue("celery") as queue:
                queue.get(timeout=10).requeue()

        await asyncio.to_thread(give_up)
        assert (await take_one(broker)).redelivered


class TestRefusals:
    async def test_a_key_of_the_wrong_type(self, broker, server):
        server.set("mail", "no list")
        await broker.send([message("a")])
        delivery = await take_one(broker)
        for operation in (
            broker.send([message("b"), message("m", "mail")]),
            broker.claim(["celery", "mail"], limit=5),
            broker.finish([Finish(delivery, (message("b"), message("m", "mail")))]),
            broker.depth(["mail"]),
        ):
            with pytest.raises(BrokerError, match="WRONGTYPE") as caught:
                await operation
            assert isinstance(caught.value.__cause__, redis.ResponseError)
        # Nothing was done in part.
        assert await broker.depth(["celery"]) == {"celery": 0}
        assert await broker.finish([Finish(delivery)]) == [True]

    async def test_waiting_for_a_key_of_the_wrong_type(self, broker, server):
        server.set("mail", "no list")
        async with asyncio.timeout(10):
            await broker.wait(["mail"], timeout=60)  # something is there: what it is, the claim says
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await take(broker, "mail")

    async def test_unacked_of_the_wrong_type_loses_nothing(self, broker, server):
        await broker.send([message(envelope("a"))])
        for key in ("unacked", "unacked_index", "aioretryq.leases"):
            server.set(key, "neither")
            with pytest.raises(BrokerError, match="WRONGTYPE"):
                await take(broker)
            server.delete(key)
        assert len(await take(broker)) == 1

    async def test_a_schedule_of_the_wrong_type_loses_nothing(self, broker, server):
        offered = replace(message("offered", due=time.time() - 1), offered=True)
        await broker.send([offered, message("parked", due=time.time() - 1), message("a")])
        server.set("aioretryq.schedule.mail", "no sorted set")
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await take(broker, "celery", "mail")
        assert server.zcard("aioretryq.schedule.celery") == 2
        server.delete("aioretryq.schedule.mail")
        assert bodies(await take(broker, "celery", "mail")) == ["a", "parked"]
        assert bodies(await take(broker, "celery", "mail")) == ["offered"]

    @pytest.mark.parametrize("count", [0, 150])
    async def test_what_is_no_member_of_ours_stays_in_the_schedule(self, broker, server, count):
        strange = ["", "x", "+", "0:", "0:x:y", "+0:3:ab", "0:99999999999999999999:a", "5:1:ta", "10:1:ta", "-0:1:ta"]
        strange += [f"strange {n}" for n in range(count)]
        server.zadd("aioretryq.schedule.celery", dict.fromkeys(strange, 1))
        now = time.time()
        offered = replace(message("offered", due=now - 2), offered=True)
        await broker.send([offered, message("parked", due=now - 1), message("later", due=now + 600)])
        assert bodies(await take(broker)) == ["parked"]
        assert bodies(await take(broker)) == ["offered"]
        assert await take(broker) == []
        assert server.zrange("aioretryq.schedule.celery", 0, -2) == sorted(strange)
        # What stays there is nothing to wake up for.
        started = time.monotonic()
        await broker.wait(["celery"], timeout=0.2)
        assert time.monotonic() - started > 0.15

    async def test_a_broker_that_is_not_open_says_so(self, redis_url):
        broker = open_broker(redis_url)
        for operation in (broker.send([message("a")]), broker.wait(["q"], timeout=1), broker.depth(["q"])):
            with pytest.raises(NotOpenError, match="async with"):
                await operation

    async def test_a_broker_may_be_opened_again(self, broker, redis_url):
        again = open_broker(redis_url)
        for name in "ab":
            async with again:
                await again.send([message(name)])
        assert bodies(await take(broker)) == ["a", "b"]
