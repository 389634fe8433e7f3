"""The bus and bindings on Redis: kombu's keys and channels, and what happens when connections are lost."""

from __future__ import annotations

import asyncio
import logging

import pytest
import redis
from redis_world import open_broker

from aioretryq.brokers.redis_channels import Channels
from aioretryq.errors import BrokerError, BrokerUnavailable, ConfigError
from aioretryq.message import Binding, Broadcast
from contracts.bus_contract import news, receive

SEP = "\x06\x16"


@pytest.fixture
def server(server_of_bytes):
    return server_of_bytes


def of_the_bus(server: redis.Redis) -> list[dict[str, str]]:
    return [client for client in server.client_list() if client["name"] == "aioretryq:bus"]


class TestChannels:
    @pytest.mark.parametrize(
        ("options", "channel"),
        [
            ({}, "/3.celeryev/worker.online"),
            ({"fanout_prefix": True}, "/3.celeryev/worker.online"),
            ({"fanout_prefix": False}, "celeryev/worker.online"),
            ({"fanout_prefix": "mine."}, "mine.celeryev/worker.online"),
            ({"fanout_prefix": "/{db}:"}, "/3:celeryev/worker.online"),
            ({"fanout_patterns": False}, "/3.celeryev"),
            ({"global_keyprefix": "p:"}, "p:/3.celeryev/worker.online"),
        ],
    )
    def test_names(self, options, channel):
        channels = Channels(options, 3)
        assert channels.channel("celeryev", "worker.online") == channel
        if channels.patterns:
            assert channels.routing_key(channel, "celeryev") == "worker.online"

    @pytest.mark.parametrize(
        ("pattern", "globs"),
        [
            ("", ["/0.ex"]),
            ("worker.#", ["/0.ex/worker*"]),
            ("worker.*", ["/0.ex/worker.*"]),
            ("#", ["/0.ex", "/0.ex/*"]),
            ("a.#.b", ["/0.ex/a*b"]),
            ("a[1]?", [r"/0.ex/a\[1]\?"]),
        ],
    )
    def test_globs(self, pattern, globs):
        assert Channels({}, 0).globs("ex", pattern) == globs

    def test_exchanges_are_no_globs(self):
        assert Channels({}, 0).globs("e*[x]", "") == [r"/0.e\*\[x]"]

    def test_without_patterns_there_is_one_channel(self):
        assert Channels({"fanout_patterns": False}, 0).globs("ex", "a.#") == ["/0.ex"]

    def test_a_wrong_prefix_is_named(self, redis_url):
        with pytest.raises(ConfigError, match="fanout_prefix"):
            open_broker(redis_url, broker_transport_options={"fanout_prefix": 5})

    async def test_without_patterns_everybody_hears_everything(self, redis_url):
        broker = open_broker(redis_url, broker_transport_options={"fanout_patterns": False})
        async with broker, broker.bus().listen("news", "a.*") as listener:
            await broker.bus().publish([Broadcast("news", "b", b"1")])
            assert await receive(listener) == [Broadcast("news", "", b"1")]

    async def test_prefixes_and_databases_keep_fleets_apart(self, redis_server, redis_url, broker):
        prefixed = open_broker(redis_url, broker_transport_options={"global_keyprefix": "other:"})
        other = open_broker(redis_server.url_of(5))
        async with prefixed, other, broker.bus().listen("news") as listener:
            for stranger in (prefixed, other):
                assert await stranger.bus().publish([news()]) == [0]
                async with stranger.bus().inbox("news", "me", ttl=1):
                    assert await broker.bus().answer(news("me"), ttl=1) == 0
            await broker.bus().publish([message := news()])
            assert await receive(listener) == [message]


class TestTables:
    async def test_queues_that_stay(self, broker, server):
        await broker.bind([Binding("celery", "direct", "celery", "celery"), Binding("tex", "topic", "a.#", "tq")])
        assert server.smembers("_kombu.binding.celery") == {f"celery{SEP}{SEP}celery".encode()}
        member = rf"a.#{SEP}^a\..*?${SEP}tq".encode()
        assert server.smembers("_kombu.binding.tex") == {member}
        assert server.smembers("_kombu.binding_permanent.tex") == {member}
        assert not server.exists("_kombu.binding_deadlines", "aioretryq.expiring")

    async def test_queues_that_expire(self, broker, server):
        await broker.bind([Binding("celery.pidbox", "direct", "", "w1@lab.celery.pidbox", 10)])
        assert server.smembers("_kombu.binding.celery.pidbox") == {f"{SEP}{SEP}w1@lab.celery.pidbox".encode()}
        assert not server.exists("_kombu.binding_permanent.celery.pidbox")
        seconds, _ = server.time()
        deadline = server.zscore("_kombu.binding_deadlines", "celery.pidbox")
        assert seconds + 3590 < deadline / 1000 <= seconds + 3601
        await broker.bind([Binding("celery.pidbox", "direct", "", "w1@lab.celery.pidbox", 36000)])
        assert server.zscore("_kombu.binding_deadlines", "celery.pidbox") > deadline + 60e6
        await broker.bind([Binding("celery.pidbox", "direct", "", "w1@lab.celery.pidbox", 10)])
        assert server.zscore("_kombu.binding_deadlines", "celery.pidbox") > deadline + 60e6

    async def test_overdue_tables_are_dropped_unless_queues_stay(self, redis_url, broker, server):
        for exchange in ("gone", "stays"):
            server.sadd(f"_kombu.binding.{exchange}", f"k{SEP}{SEP}q")
            server.zadd("_kombu.binding_deadlines", {exchange: 1})
        server.zadd("_kombu.binding_deadlines", {"future": 9e15})
        server.sadd("_kombu.binding_permanent.stays", f"k{SEP}{SEP}q")
        await broker.recover()
        assert not server.exists("_kombu.binding.gone")
        assert server.exists("_kombu.binding.stays")
        assert server.zrange("_kombu.binding_deadlines", 0, -1) == [b"future"]

    async def test_strange_members_are_ignored_and_named_once(self, broker, server, caplog):
        server.sadd("_kombu.binding.x", "", "no separator", b"\xff\xfe", f"a{SEP}b", f"k{SEP}{SEP}", f"{SEP * 5}")
        server.sadd("_kombu.binding.x", f"a.*{SEP}((((({SEP}q1", f"k{SEP}{SEP}q2")
        with caplog.at_level(logging.WARNING, "aioretryq"):
            for _ in range(3):
                assert await broker.bindings("x") == [
                    Binding("x", "topic", "a.*", "q1"),
                    Binding("x", "direct", "k", "q2"),
                ]
        (record,) = caplog.records
        assert "_kombu.binding.x" in record.message

    async def test_a_table_that_is_none(self, broker, server):
        server.set("_kombu.binding.x", "text")
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await broker.bindings("x")


class TestInboxes:
    async def test_the_inbox_is_what_kombu_would_have_declared(self, broker, server):
        async with broker.bus().inbox("reply.celery.pidbox", "oid", ttl=10) as inbox:
            member = f"oid{SEP}{SEP}oid.reply.celery.pidbox".encode()
            assert server.smembers("_kombu.binding.reply.celery.pidbox") == {member}
            assert not server.exists("_kombu.binding_permanent.reply.celery.pidbox")
            assert server.zscore("_kombu.binding_deadlines", "reply.celery.pidbox") > 0
            server.lpush("oid.reply.celery.pidbox", "1", "2")  # as a Celery worker answers
            assert [heard.body for heard in await receive(inbox, 2)] == [b"1", b"2"]
        assert not server.exists("_kombu.binding.reply.celery.pidbox", "oid.reply.celery.pidbox")
        assert server.zrange("aioretryq.expiring", 0, -1) == []

    async def test_answers_have_a_time_to_live(self, broker, server):
        server.sadd("_kombu.binding.reply.celery.pidbox", f"oid{SEP}{SEP}oid.reply.celery.pidbox", f"x{SEP}{SEP}x")
        assert await broker.bus().answer(Broadcast("reply.celery.pidbox", "oid", b"pong"), ttl=5) == 1
        assert server.lrange("oid.reply.celery.pidbox", 0, -1) == [b"pong"]
        assert 0 < server.pttl("oid.reply.celery.pidbox") <= 5000
        assert not server.exists("x")

    async def test_a_list_that_is_none_does_not_keep_others_from_their_answers(self, broker, server, caplog):
        server.set("text", "unchanged")
        server.sadd("_kombu.binding.replies", f"oid{SEP}{SEP}text", f"oid{SEP}{SEP}z-good")
        assert await broker.bus().answer(Broadcast("replies", "oid", b"pong"), ttl=5) == 1
        assert server.lrange("z-good", 0, -1) == [b"pong"]
        assert "'text'" in caplog.text

    async def test_a_flushed_server_gets_the_inbox_again(self, broker, server, monkeypatch):
        monkeypatch.setattr("aioretryq.brokers.redis_bus.BOUND_AGAIN", 0.05)
        async with broker.bus().inbox("replies", "me", ttl=10) as inbox, open_broker(broker._url) as other:
            server.flushdb()
            async with asyncio.timeout(10):
                while not await other.bus().answer(Broadcast("replies", "me", b"1"), ttl=10):
                    await asyncio.sleep(0.01)
            assert [heard.body for heard in await receive(inbox)] == [b"1"]

    async def test_many_inboxes_one_after_the_other_leave_nothing(self, broker, server):
        for n in range(20):
            async with broker.bus().inbox("replies", f"me{n}", ttl=10) as inbox:
                await broker.bus().answer(Broadcast("replies", f"me{n}", b"1"), ttl=10)
                await receive(inbox)
        assert server.keys("*") == [b"_kombu.binding_deadlines"]
        names = [client["name"] for client in server.client_list()]
        assert names.count("aioretryq:wait") < 4


class TestOneConnection:
    async def test_however_many_listen(self, broker, server):
        assert of_the_bus(server) == []
        async with broker.bus().listen("a"), broker.bus().listen("b"), broker.bus().listen("b", "x.*"):
            (client,) = of_the_bus(server)
            assert (client["sub"], client["psub"]) == ("2", "3")  # patterns only where one channel is not all
        (client,) = of_the_bus(server)
        assert (client["sub"], client["psub"]) == ("0", "0")
        await broker.__aexit__(None, None, None)
        async with asyncio.timeout(10):
            while of_the_bus(server):
                await asyncio.sleep(0.001)

    async def test_many_who_come_at_once_open_one(self, broker, server):
        async def listen() -> None:
            async with broker.bus().listen("a") as listener:
                await listener.receive()

        async with asyncio.TaskGroup() as group:
            listening = [group.create_task(listen()) for _ in range(50)]
            while server.pubsub_numpat() < 1:
                await asyncio.sleep(0.001)
            assert len(of_the_bus(server)) == 1
            for task in listening:
                task.cancel()
        assert server.pubsub_numpat() == 0

    async def test_after_fifty_cuts_there_is_still_one(self, broker, server):
        for _ in range(50):
            async with broker.bus().listen("news", "a") as listener, broker.bus().listen("news", "b") as other:
                await broker.bus().publish([heard := news("a")])
                assert await receive(listener) == [heard]
                server.client_kill_filter(_id=of_the_bus(server)[0]["id"])
                for deaf in (listener, other):
                    with pytest.raises(BrokerUnavailable):
                        await receive(deaf)
        async with broker.bus().listen("news"):
            assert len(of_the_bus(server)) == 1
            assert len([task for task in asyncio.all_tasks() if task.get_name() == "aioretryq bus"]) == 1

    async def test_what_was_heard_before_the_cut_is_received(self, broker, server):
        async with broker.bus().listen("news") as listener:
            await broker.bus().publish([first := news(), second := news("k")])
            server.client_kill_filter(_type="pubsub")
            assert await receive(listener, 2) == [first, second]
            with pytest.raises(BrokerUnavailable):
                await receive(listener)

    async def test_an_inbox_whose_connections_are_cut(self, broker, server):
        async with broker.bus().inbox("replies", "me", ttl=10) as inbox:
            while not server.info("stats")["tracking_total_keys"]:
                await asyncio.sleep(0.001)
            server.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(BrokerUnavailable):
                await receive(inbox)
        async with broker.bus().inbox("replies", "me", ttl=10) as inbox:
            await broker.bus().answer(Broadcast("replies", "me", b"1"), ttl=10)
            assert len(await receive(inbox)) == 1

    async def test_a_server_that_is_restarted(self, redis_server, redis_url, broker):
        async with broker.bus().listen("news") as listener:
            redis_server.restart()
            with pytest.raises(BrokerUnavailable):
                await receive(listener)
        async with broker.bus().listen("news") as listener:
            await broker.bus().publish([message := news()])
            assert await receive(listener) == [message]

    async def test_a_server_that_says_nothing_any_more(self, redis_server, redis_url):
        broker = open_broker(redis_url, redis_socket_timeout=0.1, broker_connection_timeout=0.1)
        async with broker, broker.bus().listen("news") as listener:
            redis_server.freeze()
            try:
                with pytest.raises(BrokerUnavailable, match="does not answer"):
                    await receive(listener)
                with pytest.raises(BrokerUnavailable):
                    await broker.bus().publish([news()])
                with pytest.raises(BrokerUnavailable):
                    async with broker.bus().listen("news"):
                        pass
            finally:
                redis_server.thaw()

    async def test_silence_is_no_loss(self, redis_url, server):
        broker = open_broker(redis_url, redis_socket_timeout=0.05)
        async with broker, broker.bus().listen("news") as listener:
            before = server.info("commandstats")["cmdstat_ping"]["calls"]
            while server.info("commandstats")["cmdstat_ping"]["calls"] < before + 4:
                await asyncio.sleep(0.01)
            await broker.bus().publish([message := news()])
            assert await receive(listener) == [message]

    async def test_who_may_not_listen_is_told(self, redis_server, redis_url, server):
        server.execute_command("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "+@all", "resetchannels", "&/0.allowed")
        broker = open_broker(redis_url.replace("//", "//deaf:pw@"))
        try:
            async with broker, broker.bus().listen("allowed", "") as listener:
                with pytest.raises(BrokerError, match="ACL"):
                    async with broker.bus().listen("forbidden"):
                        pass
                server.publish("/0.allowed", "1")  # the others' connection goes on
                assert [heard.body for heard in await receive(listener)] == [b"1"]
        finally:
            server.execute_command("ACL", "DELUSER", "deaf")


class TestHostile:
    async def test_anything_may_be_published(self, broker, server):
        async with broker.bus().listen("news", "#") as listener:
            payloads = [b"", b"\xff\xfe", b"{", b'{"a": 1}', b"\x00" * 10, b"x" * 100_000]
            for payload in payloads:
                server.publish("/0.news/k", payload)
            server.publish(b"/0.news/\xff\xfe", "k")
            server.publish("/0.news/" + "a." * 5000, "k")
            heard = await receive(listener, len(payloads) + 2)
            assert [each.body for each in heard] == [*payloads, b"k", b"k"]

    async def test_hostile_patterns_and_keys_take_no_time(self, broker, server):
        async with broker.bus().listen("news", "#.a.#.a.#.a.#.a.#.a.#.a.#.b") as listener:
            server.publish("/0.news/" + "a." * 1000 + "c", "k")
            server.publish("/0.news/" + "a." * 1000 + "b", "l")
            assert [each.body for each in await receive(listener)] == [b"l"]
