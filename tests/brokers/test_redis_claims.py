"""What a claim on Redis takes, how much of it, and when one is worth making."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis
from msgspec.structs import replace
from redis_world import open_broker

from aioretryq.errors import BrokerError, BrokerUnavailable
from contracts.broker_world import bodies, message, take

MIB = 2**20


def calls(server: redis.Redis, command: str) -> int:
    stat = server.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return int(stat["calls"])


class TestRefusals:
    """Who may not do all of it does nothing that loses a message, or leaves one twice."""

    @pytest.fixture
    def restricted(self, redis_server, server):
        def url(*rights):
            server.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pw", "~*", "&*", "+@all", *rights)
            return f"redis://limited:pw@127.0.0.1:{redis_server.port}/0"

        yield url
        server.execute_command("ACL", "DELUSER", "limited")

    @pytest.mark.parametrize("command", ["hset", "zadd", "zrem", "ltrim", "lrange", "lpush"])
    async def test_what_may_not_be_taken_stays(self, restricted, broker, server, command):
        await broker.send([message("a"), message("b"), message("parked", due=time.time() - 1)])
        async with open_broker(restricted(f"-{command}")) as limited:
            with pytest.raises((BrokerError, BrokerUnavailable)):
                await limited.claim(["celery"], limit=10)
        assert server.hlen("unacked") == server.zcard("unacked_index") == server.zcard("aioretryq.leases") == 0
        assert bodies(await take(broker)) == ["a", "b", "parked"]

    async def test_a_full_server_lets_take_what_is_there(self, broker, server):
        await broker.send([message(str(number)) for number in range(120)])
        server.config_set("maxmemory", 1)
        try:
            found = await take(broker, limit=110)
        finally:
            server.config_set("maxmemory", 0)
        assert bodies(found) == [str(number) for number in range(110)]
        assert server.hlen("unacked") == 110
        assert bodies(await take(broker)) == [str(number) for number in range(110, 120)]

    async def test_nothing_is_parked_where_the_rest_may_not_be_sent(self, restricted, broker):
        messages = [message("parked", due=time.time() + 60), message("b")]
        async with open_broker(restricted("-lpush")) as limited:
            with pytest.raises((BrokerError, BrokerUnavailable)):
                await limited.send([replace(each, fresh=True) for each in messages])
        assert await broker.depth(["celery"]) == {"celery": 0}


class TestBytes:
    """A reply has to be read within its deadline."""

    async def test_a_claim_stops_after_a_mebibyte_and_the_next_one_goes_on(self, broker):
        names = [f"{number:02}" for number in range(40)]
        await broker.send([message(name + "x" * 100_000, priority=9 * (name >= "30")) for name in names])
        found = []
        while len(found) < len(names):
            claimed = bodies((await broker.claim(["celery"], limit=40)).deliveries)
            assert 0 < sum(map(len, claimed)) < MIB + 200_000
            found += claimed
            async with asyncio.timeout(5):
                await broker.wait(["celery"], timeout=10 if len(found) < len(names) else 0.01)
        assert [body[:2] for body in found] == names

    async def test_one_message_always(self, broker):
        await broker.send([message("x" * 3 * MIB), message("y" * 3 * MIB)])
        assert [len((await broker.claim(["celery"], limit=9)).deliveries) for _ in range(3)] == [1, 1, 0]


class TestManyQueues:
    async def test_more_than_lua_has_room_for(self, broker):
        queues = [f"q{number}" for number in range(4500)]
        assert (await broker.claim(queues, limit=1)).deliveries == []
        await broker.send([message("last", queues[-1])])
        assert bodies((await broker.claim(queues, limit=1)).deliveries) == ["last"]
        await broker.recover(worker="w", queues=queues)
        assert await broker.leave("w", queues) == queues


class TestWaits:
    """Where CLIENT TRACKING is refused."""

    async def test_where_nothing_is_told_each_wait_looks_first(self, redis_server, broker, server):
        server.execute_command("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "&*", "+@all", "-client|tracking")
        try:
            async with open_broker(f"redis://deaf:pw@127.0.0.1:{redis_server.port}/0") as deaf:
                assert await take(deaf) == []
                await deaf.wait(["celery"], timeout=0.001)
                server.lpush("celery", "came between")
                before = calls(server, "exists")
                await deaf.wait(["celery"], timeout=0.05)  # less than the time between two looks
                assert calls(server, "exists") == before + 1
        finally:
            server.execute_command("ACL", "DELUSER", "deaf")
