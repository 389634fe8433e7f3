"""Messages whose holders are gone, ours and Celery's: counted in the message, and first in their queues again."""

from __future__ import annotations

import json
import time
from pathlib import Path

import kombu
import pytest
import redis
from redis_world import open_broker, task_message

from aioretryq.brokers.redis_bindings import read_table
from aioretryq.brokers.redis_history import history
from aioretryq.brokers.redis_recovery import read_celerys
from aioretryq.protocol import envelope as envelopes
from aioretryq.routing import targets
from contracts.broker_world import LEASE, bodies, leases_end, message, sweeps, take, take_one

SEP = "\x06\x16"
GOLDEN = Path(__file__).parent.parent / "golden" / "unacked.json"
((TAG, ENTRY),) = json.loads(GOLDEN.read_text())["unacked"].items()


@pytest.fixture
async def broker(world):
    """Not about to sweep for the first time."""
    broker = await world.connect()
    await sweeps(world, broker, LEASE * 0.9)
    await world.advance(LEASE * 0.2)
    return broker


def leave(server: redis.Redis, value: str, tag: str = TAG, *, age: float = 3601, prefix: str = "") -> None:
    """As a Celery worker that took a message and died."""
    server.hset(f"{prefix}unacked", tag, value)
    server.zadd(f"{prefix}unacked_index", {tag: time.time() - age})


def entry(exchange: str = "", routing_key: str = "celery", priority: object = 0) -> str:
    document = json.loads(json.dumps(ENTRY[0]))
    document["properties"]["priority"] = priority
    return json.dumps([document, exchange, routing_key])


class TestCounts:
    async def test_they_are_in_the_message(self, broker, world):
        await broker.send([message(task_message())])
        await broker.requeue([await take_one(broker)])
        delivery = await take_one(broker)
        assert envelopes.marks(delivery.body) == {"deliveries": 0, "interruptions": 1}
        await leases_end(world, broker)
        await broker.recover()
        delivery = await take_one(broker)
        assert envelopes.marks(delivery.body) == {"deliveries": 1, "interruptions": 1}
        assert (delivery.deliveries, delivery.interruptions) == (2, 1)

    async def test_other_marks_stay(self, broker):
        await broker.send([message(envelopes.mark(task_message(), unknown_since=7.5))])
        delivery = await take_one(broker)
        assert (delivery.redelivered, delivery.deliveries) == (False, 1)
        await broker.requeue([delivery])
        assert envelopes.marks((await take_one(broker)).body)["unknown_since"] == 7.5

    async def test_what_celery_restored_was_delivered_before(self, redis_url, broker, server):
        server.lpush("celery", envelopes.mark_redelivered(task_message()))
        delivery = await take_one(broker)
        assert (delivery.redelivered, delivery.deliveries, delivery.interruptions) == (True, 2, 0)
        await broker.requeue([delivery])
        again = await take_one(broker)
        assert (again.deliveries, again.interruptions) == (2, 1)
        with kombu.Connection(redis_url) as connection:
            connection.default_channel.qos.restore_by_tag(again.tag)
        again = await take_one(broker)  # kombu does not count
        assert (again.deliveries, again.interruptions) == (2, 1)

    async def test_opaque_messages_are_not_counted(self, broker):
        await broker.send([message("redelivered, says the text")])
        for _ in range(2):
            delivery = await take_one(broker)
            assert (delivery.redelivered, delivery.deliveries, delivery.interruptions) == (False, 1, 0)
            await broker.requeue([delivery])

    @pytest.mark.parametrize(
        ("marks", "expected"),
        [
            ({"deliveries": 4, "interruptions": 2}, (True, 5, 2)),
            ({"deliveries": 4}, (True, 5, 0)),
            ({"interruptions": 2}, (True, 1, 2)),
            ({"other": 1}, (True, 2, 0)),
            ({"deliveries": "4", "interruptions": True}, (True, 2, 0)),
            ({"deliveries": -4, "interruptions": 1e300}, (True, 2, 0)),
            ([4], (True, 2, 0)),
        ],
    )
    def test_marks_are_read_with_care(self, marks, expected):
        document = {"body": "", "properties": {"delivery_info": {"redelivered": True, "aioretryq": marks}}}
        assert history(json.dumps(document).encode()) == expected

    @pytest.mark.parametrize(
        "body",
        [b"", b"redelivered", b'{"redelivered": true}', b'{"body": "redelivered"}', b'["redelivered"]'],
    )
    def test_all_else_is_new(self, body):
        assert history(body) == (False, 1, 0)

    def test_nobody_reads_a_message_without_need(self):
        # What is no document would fail otherwise: the word decides, and the body is not looked at.
        assert history(b'{"body": "' + bytes(10)) == (False, 1, 0)


class TestCelerysMessages:
    async def test_the_golden_entry_comes_back_as_kombu_restores_it(self, redis_url, broker, server):
        await broker.send([message("behind")])
        leave(server, json.dumps(ENTRY))
        assert await broker.recover() == 1
        assert server.exists("unacked", "unacked_index") == 0
        ours = json.loads(server.lindex("celery", -1))

        leave(server, json.dumps(ENTRY))
        with kombu.Connection(redis_url) as connection:
            connection.default_channel.qos.restore_by_tag(TAG)
        kombus = json.loads(server.rpop("celery"))
        assert ours["properties"]["delivery_info"].pop("aioretryq") == {"deliveries": 1}
        assert ours == kombus

        delivery, behind = await take(broker)
        assert (delivery.redelivered, delivery.deliveries, delivery.interruptions) == (True, 2, 0)
        assert envelopes.decode(delivery.body).headers["id"] == ENTRY[0]["headers"]["id"]
        assert behind.body == b"behind"

    async def test_a_celery_client_reads_what_came_back(self, redis_url, broker, server):
        leave(server, json.dumps(ENTRY))
        await broker.recover()
        with kombu.Connection(redis_url) as connection, connection.SimpleQueue("celery") as queue:
            received = queue.get(timeout=10)
            received.ack()
        assert received.payload[0] == [5, 5]
        assert received.headers["redelivered"] is True

    async def test_what_is_younger_or_has_a_lease_stays(self, world, broker, server):
        leave(server, entry(), "young", age=3500)
        await broker.send([message(task_message())])
        held = await take_one(broker)
        server.zadd("unacked_index", {held.tag: 1})
        assert await broker.recover() == 0
        assert set(server.hkeys("unacked")) == {"young", held.tag}
        assert await broker.extend([held]) == [True]

    async def test_ours_without_a_lease_comes_back_too(self, broker, server):
        # Somebody has deleted our key, and Celery's way is left.
        await broker.send([message(task_message(), 'ma"il')])
        held = await take_one(broker, 'ma"il')
        server.delete("aioretryq.leases")
        server.zadd("unacked_index", {held.tag: 1})
        assert await broker.recover() == 1
        assert (await take_one(broker, 'ma"il')).deliveries == 2

    async def test_the_visibility_timeout_is_that_of_the_options(self, world, server):
        broker = await world.connect(broker_transport_options={"visibility_timeout": 50, "global_keyprefix": "app:"})
        await sweeps(world, broker, 0)
        server.hset("app:aioretryq.sweep", "quiet_until", 0)
        leave(server, entry(), "old", age=60, prefix="app:")
        leave(server, entry(), "young", age=40, prefix="app:")
        leave(server, entry(), "not ours", age=60)
        assert await broker.recover() == 1
        assert server.hkeys("app:unacked") == ["young"]
        assert server.llen("app:celery") == 1
        assert server.hkeys("unacked") == ["not ours"]

    async def test_a_late_sweep_leaves_them_too(self, world, server):
        broker = await world.connect()
        leave(server, entry())
        assert await broker.recover() == 0
        await sweeps(world, broker, LEASE * 0.9)
        await world.advance(LEASE * 0.2)
        assert await broker.recover() == 1

    @pytest.mark.parametrize(("priority", "bucket"), [(0, 0), (4, 3), (9, 9), (77, 9), (-1, 0), ("6", 6), (None, 0)])
    async def test_priorities(self, broker, server, priority, bucket):
        leave(server, entry(priority=priority))
        assert await broker.recover() == 1
        assert (await take_one(broker)).priority == bucket

    async def test_the_queue_is_what_is_bound_to_the_exchange(self, redis_url, broker, server):
        direct, topic = kombu.Exchange("mails", type="direct"), kombu.Exchange("news", type="topic")
        with kombu.Connection(redis_url) as connection:
            for name, exchange, key in (
                ("outbox", direct, "send"),
                ("inbox", direct, "receive"),
                ("sport", topic, "sport.#"),
                ("all", topic, "#"),
                ("arts", topic, "arts.*"),
            ):
                kombu.Queue(name, exchange, routing_key=key, channel=connection.default_channel).declare()
        for exchange, key in (("mails", "send"), ("news", "sport.ball"), ("mails", "none"), ("no such", "alone")):
            leave(server, entry(exchange, key), f"{exchange} {key}")
        assert await broker.recover() == 4
        queues = ["outbox", "sport", "all", "none", "alone", "inbox", "arts", "send", "mails"]
        assert list((await broker.depth(queues)).values()) == [1, 1, 1, 1, 1, 0, 0, 0, 0]

    async def test_the_oldest_is_first(self, broker, server):
        for n in range(250):
            document = json.loads(json.dumps(ENTRY[0]))
            document["headers"]["id"] = str(n)
            leave(server, json.dumps([document, "", "celery"]), f"tag {n}", age=5000 - n)
        assert await broker.recover() == 250
        ids = [envelopes.decode(delivery.body).headers["id"] for delivery in await take(broker, limit=300)]
        assert ids == [str(n) for n in range(250)]

    @pytest.mark.parametrize(
        "value",
        [
            *(
                "",
                "garbage",
                "[]",
                "{}",
                "[{}]",
                '[{}, ""]',
                '[{}, "", ""]',
                '[{}, "", 7]',
                '[{}, "", "q"] x',
                "[7,7,7]",
            ),
            '[{}, "", "q", 1]',
            '["text", "", "q"]',
            '[{"body": "cut',
            '[{"a": ' + "[" * 100_000,
        ],
        ids=range(14),
    )
    async def test_what_is_unreadable_stays_and_is_told_once(self, world, server, broker, caplog, value):
        leave(server, value, "bad", age=5000)
        leave(server, entry(), "good", age=4000)
        assert await broker.recover() == 1
        assert server.hgetall("unacked") == {"bad": value}
        assert server.zscore("unacked_index", "bad") is not None
        other = await world.connect(broker_transport_options={"visibility_timeout": 0.0001})
        for _ in range(3):
            await other.recover()
        told = [record for record in caplog.records if "unreadable" in record.message]
        assert len(told) == 2  # by each broker

    async def test_bytes_that_are_no_text(self, broker, server, redis_url):
        with redis.Redis.from_url(redis_url) as client:
            client.hset("unacked", TAG, b'[{"\xff": 1}, "", "celery"]')
        server.zadd("unacked_index", {TAG: 1})
        assert await broker.recover() == 0
        assert server.zcard("unacked_index") == 1

    async def test_what_is_unreadable_does_not_hide_what_comes_after_it(self, broker, server):
        for n in range(5):
            leave(server, "garbage", f"bad {n}", age=5000)
        for n in range(3):
            leave(server, entry(), f"good {n}", age=4000)
        assert await broker.recover(limit=2) == 2
        assert server.zcard("unacked_index") == 6

    async def test_a_message_that_is_none_of_celerys_is_for_the_worker_to_judge(self, broker, server):
        leave(server, '[{"odd": true}, "", "celery"]')
        assert await broker.recover() == 1
        assert bodies(await take(broker)) == ['{"odd": true}']

    async def test_an_index_without_a_message(self, broker, server):
        server.zadd("unacked_index", {TAG: 1})
        assert await broker.recover() == 0
        assert await take(broker) == []

    async def test_it_looks_only_now_and_then(self, world, broker, server):
        assert await broker.recover() == 0
        leave(server, entry())
        assert await broker.recover() == 0
        assert await (await world.connect()).recover() == 1

    async def test_a_key_of_the_wrong_type_loses_nothing(self, world, broker, server, caplog):
        server.set("mail", "no list")
        leave(server, entry(routing_key="mail"), "bad")
        leave(server, entry(), "good")
        assert await broker.recover() == 1
        assert (server.hkeys("unacked"), server.zcard("unacked_index")) == (["bad"], 1)
        assert "1 messages that no Celery worker finished are for keys that are no queues" in caplog.text
        server.delete("mail")
        assert await (await world.connect()).recover() == 1


def test_an_entry_is_cut_not_written_anew():
    text = '[{"headers":  {"x": 1.50, "n": 12345678901234567890123},"body": "\\u00e9"} , "ex" ,"key"]'
    assert read_celerys(text.encode()) == (text[1 : text.index("} ,") + 1].encode(), "ex", "key", 0)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({f"key{SEP}{SEP}q"}, {"q"}),
        ({f"key{SEP}{SEP}q", f"key{SEP}{SEP}r", f"other{SEP}{SEP}s"}, {"q", "r"}),
        ({f"#{SEP}^.*?${SEP}q"}, {"q"}),
        ({f"k{SEP}(({SEP}q", "key", f"key{SEP}q", f"key{SEP}{SEP}", "", f"key{SEP}{SEP}q{SEP}"}, set()),
    ],
)
def test_bindings(members, expected):
    bindings, _ = read_table("ex", {member.encode() for member in members})
    assert set(targets(bindings, "key")) == expected


async def test_recovery_goes_on_where_the_server_is_full(redis_url, world, server):
    async with open_broker(redis_url) as broker:
        await broker.send([message(task_message())])
        await take_one(broker)
        await leases_end(world, broker)
        server.config_set("maxmemory", 1)
        try:
            assert await broker.recover() == 1
        finally:
            server.config_set("maxmemory", 0)
