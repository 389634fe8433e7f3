"""The Redis broker while it waits, and while the server is restarted, gone, frozen or full."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest
import redis

from aioretryq.brokers.redis import RedisBroker
from aioretryq.config import Settings
from aioretryq.errors import BrokerUnavailable
from aioretryq.message import DeadEntry, Finish
from contracts.broker_world import bodies, message, take, take_one, wait_and_take
from redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SEP = "\x06\x16"


def open_broker(url: str, **settings: object) -> RedisBroker:
    conf = Settings()
    conf.update(settings)
    return RedisBroker.from_url(url, conf)


def calls(server: redis.Redis) -> dict[str, int]:
    return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in server.info("commandstats").items()}


def connections(server: redis.Redis) -> dict[str, int]:
    names = [client["name"] for client in server.client_list()]
    return {name: names.count(name) for name in names if name.startswith("aioretryq")}


WATCHED = 6
"""Keys of one queue: four lists, its schedule, and the revocations, which all queues share."""


async def watched(server: redis.Redis, count: int = WATCHED) -> None:
    """Return once the server would tell of changes of `count` keys."""
    async with asyncio.timeout(10):
        while server.info("stats")["tracking_total_keys"] != count:
            await asyncio.sleep(0.001)


async def begin_waiting(server: redis.Redis, broker: RedisBroker, *queues: str) -> asyncio.Task[None]:
    async with asyncio.timeout(10):
        while True:
            waiting = asyncio.create_task(broker.wait(queues, timeout=60))
            while not waiting.done():
                if server.info("stats")["tracking_total_keys"] == 1 + 5 * len(queues):
                    return waiting
                await asyncio.sleep(0.001)
            await waiting  # woken at once by what happened before, its own claim perhaps


class TestWaiting:
    async def test_a_message_wakes_at_once(self, redis_url, broker, server):
        delays = []
        async with open_broker(redis_url) as other:
            for _ in range(5):
                waiting = await begin_waiting(server, broker, "celery")
                started = time.perf_counter()
                await other.send([message("a")])
                await waiting
                delays.append(time.perf_counter() - started)
                await broker.finish([Finish(await take_one(broker))])
        assert min(delays) < 0.05

    @pytest.mark.parametrize("bucket", [3, 6, 9])
    async def test_the_first_message_of_a_lower_priority_wakes_at_once(self, broker, server, bucket):
        waiting = await begin_waiting(server, broker, "celery")
        server.lpush(f"celery{SEP}{bucket}", "from a Celery client")
        async with asyncio.timeout(10):
            await waiting
        assert bodies(await take(broker)) == ["from a Celery client"]

    async def test_what_others_park_and_revoke_wakes_at_once(self, redis_url, broker, server):
        async with open_broker(redis_url) as other:
            assert await take(broker) == []
            waiting = await begin_waiting(server, broker, "celery")
            await other.send([message("parked", due=time.time() + 0.2)])
            async with asyncio.timeout(10):
                await waiting
                assert await take(broker) == []
                while not (found := await take(broker)):  # from now on it is known when
                    await broker.wait(["celery"], timeout=60)
            assert bodies(found) == ["parked"]
            waiting = await begin_waiting(server, broker, "celery")
            await other.revoke(["id"], ttl=60)
            async with asyncio.timeout(10):
                await waiting
            assert (await broker.claim(["celery"], limit=1)).revoked == ["id"]

    async def test_what_this_process_sends_or_parks_is_noticed_at_once(self, broker, server):
        await take(broker)
        for sent in (message("lower", priority=9), message("parked", due=time.time() + 0.1)):
            waiting = asyncio.create_task(wait_and_take(broker))
            await watched(server)
            started = time.perf_counter()
            await broker.send([sent])
            assert bodies(await waiting) == bodies([sent])
            assert time.perf_counter() - started < 0.6

    async def test_connections_are_few(self, redis_url, broker, server):
        assert connections(server) == {"aioretryq:broker": 1}
        await asyncio.gather(*(broker.depth(["celery"]) for _ in range(20)))
        for _ in range(3):
            await broker.wait(["a", "b"], timeout=0.05)
        assert connections(server) == {"aioretryq:broker": 2, "aioretryq:wait": 1}
        await broker.__aexit__(None, None, None)
        await gone(server)

    async def test_who_waits_asks_nothing(self, broker, server):
        waiting = await begin_waiting(server, broker, "celery")
        server.config_resetstat()
        await asyncio.wait([waiting], timeout=2)
        assert not waiting.done()
        assert calls(server).keys() <= {"info", "config|resetstat"}
        waiting.cancel()

    async def test_nothing_goes_on_when_nobody_waits_any_more(self, broker, server):
        await broker.wait(["celery", "mail"], timeout=0.05)
        await broker.send([message("a")])
        await broker.wait(["celery"], timeout=10)
        server.config_resetstat()
        await broker.wait(["other"], timeout=0.05)
        await broker.wait(["other"], timeout=0.3)
        assert calls(server)["exists"] == 1
        assert "evalsha" not in calls(server)

    async def test_a_full_list_and_nobody_who_claims(self, broker, server):
        # As a worker with all hands busy: whoever waits again is told again, in one round trip each.
        await broker.send([message("a")])
        server.config_resetstat()
        for _ in range(10):
            async with asyncio.timeout(10):
                await broker.wait(["celery"], timeout=60)
        assert calls(server)["exists"] <= 10

    async def test_cancelled_waits_leak_nothing(self, broker, server):
        for _ in range(30):
            waiting = await begin_waiting(server, broker, "celery")
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert connections(server) == {"aioretryq:broker": 1, "aioretryq:wait": 1}
        await broker.send([message("a")])
        await broker.wait(["celery"], timeout=10)
        assert bodies(await take(broker)) == ["a"]

    async def test_cancelled_commands_leak_nothing(self, broker, server):
        await broker.send([message(str(n)) for n in range(10)])
        for delay in range(40):
            counting = asyncio.create_task(broker.depth(["celery"]))
            for _ in range(delay % 8):
                await asyncio.sleep(0)
            counting.cancel()
            await asyncio.gather(counting, return_exceptions=True)
            assert await broker.depth(["celery"]) == {"celery": 10}
        assert connections(server)["aioretryq:broker"] <= 2

    async def test_closing_while_waiting(self, redis_url, server):
        broker = await open_broker(redis_url).__aenter__()
        waiting = await begin_waiting(server, broker, "celery")
        await broker.__aexit__(None, None, None)
        async with asyncio.timeout(10):
            await waiting
        await gone(server)


class TestServersThatTellNothing:
    """Where an ACL or a proxy forbids CLIENT TRACKING."""

    @pytest.fixture
    def url(self, redis_server, server):
        server.execute_command("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "&*", "+@all", "-client|tracking")
        yield f"redis://deaf:secret@127.0.0.1:{redis_server.port}/0"
        server.execute_command("ACL", "DELUSER", "deaf")

    async def test_messages_are_found_all_the_same(self, url, server, caplog):
        async with open_broker(url) as broker:
            assert await take(broker) == []
            for key in ("celery", f"celery{SEP}6"):
                waiting = asyncio.create_task(wait_and_take(broker))
                await asyncio.wait([waiting], timeout=0.3)
                server.lpush(key, "from a Celery client")
                assert bodies(await waiting) == ["from a Celery client"]
            async with asyncio.timeout(10):
                await broker.send([message("parked", due=time.time() + 0.1)])
                assert bodies(await wait_and_take(broker)) == ["parked"]
                await broker.revoke(["id"], ttl=60)
                while not (await broker.claim(["celery"], limit=1)).revoked:
                    await broker.wait(["celery"], timeout=60)
        assert caplog.text.count("ten times a second") == 1

    async def test_looking_is_cheap(self, url, server):
        async with open_broker(url) as broker:
            await broker.wait(["celery"], timeout=0.001)
            server.config_resetstat()
            await broker.wait(["celery"], timeout=1)
        asked = calls(server)
        assert asked["exists"] <= 11
        assert "evalsha" not in asked


async def gone(server: redis.Redis) -> None:
    async with asyncio.timeout(10):
        while connections(server):
            await asyncio.sleep(0.001)


class TestTrouble:
    async def test_forgotten_scripts_are_loaded_again(self, broker, server):
        await broker.send([message("a")])
        server.script_flush()
        delivery = await take_one(broker)
        server.script_flush()
        assert await broker.finish([Finish(delivery)]) == [True]

    async def test_the_server_is_gone_and_comes_back(self, redis_server, broker):
        await take(broker)
        redis_server.kill()
        try:
            operations: list[Callable[[], Awaitable[object]]] = [
                lambda: broker.send([message("a")]),
                lambda: broker.claim(["celery"], limit=1),
                lambda: broker.wait(["celery"], timeout=60),
                lambda: broker.depth(["celery"]),
                lambda: broker.purge("celery"),
                lambda: broker.recover(),
                lambda: broker.dead(),
                lambda: broker.dead_entry("id"),
                lambda: broker.dead_count(),
                lambda: broker.bury([DeadEntry("id", b"dead")]),
                lambda: broker.exhume([("id", None)]),
                lambda: broker.trim_dead(keep=1, before=""),
                lambda: broker.revoke(["t"], ttl=60),
            ]
            for operation in operations:
                with pytest.raises(BrokerUnavailable, match="Is the server running") as caught:
                    await operation()
                assert isinstance(caught.value.__cause__, redis.RedisError)
        finally:
            redis_server.start()
        await broker.send([message("b")])
        async with asyncio.timeout(10):
            await broker.wait(["celery"], timeout=60)
        assert bodies(await take(broker)) == ["b"]
        with redis.Redis.from_url(redis_server.url) as client:
            assert client.exists("_kombu.binding.celery", "_kombu.binding_permanent.celery") == 2

    async def test_a_restart_ends_a_wait(self, redis_server, broker, server):
        waiting = await begin_waiting(server, broker, "celery", "mail")
        redis_server.restart()
        with pytest.raises(BrokerUnavailable):
            await waiting
        # That was then: the next wait is not told of it.
        await broker.send([message("a")])
        async with asyncio.timeout(10):
            await broker.wait(["celery", "mail"], timeout=60)

    async def test_killed_connections(self, broker, server):
        await broker.send([message("a")])
        waiting = await begin_waiting(server, broker, "mail")
        server.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(BrokerUnavailable):
            await waiting
        assert bodies(await take(broker)) == ["a"]
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(wait_and_take(broker, "mail"))
            await watched(server)
            await broker.send([message("m", "mail")])
        assert bodies(waiting.result()) == ["m"]

    async def test_a_frozen_server_is_gone_after_the_socket_timeout(self, redis_url, server):
        async with open_broker(redis_url, redis_socket_timeout=0.2) as broker:
            await broker.send([message("a")])
            server.client_pause(1500)
            started = time.perf_counter()
            with pytest.raises(BrokerUnavailable, match="does not answer"):
                await broker.send([message("b")])
            assert time.perf_counter() - started < 1.2
            server.client_unpause()
            assert bodies(await take(broker)) in (["a"], ["a", "b"])

    async def test_a_lost_reply_is_not_sent_again(self, redis_url, server):
        # redis-py's own retries would: the server holds the command back, and runs it later.
        async with open_broker(redis_url, redis_socket_timeout=0.2) as broker:
            await broker.send([message("first")])
            server.client_pause(1500)
            with pytest.raises(BrokerUnavailable):
                await broker.revoke(["t"], ttl=60)
            server.client_unpause()
            server.config_resetstat()
            await broker.depth(["celery"])
            assert calls(server).get("evalsha", 0) == 0

    async def test_who_lives_keeps_what_it_holds_when_the_server_freezes(self, redis_server, redis_url):
        # All that waits in the server's sockets when it goes on is carried out then, sweeps first perhaps.
        lease = 1.0
        async with contextlib.AsyncExitStack() as stack:
            brokers = [await stack.enter_async_context(open_broker(redis_url, lease=lease)) for _ in range(4)]
            await brokers[0].send([message(str(n)) for n in range(20)])
            held = await take(brokers[0], limit=10)
            recovered: list[int] = []
            renewed: list[bool] = [True]

            gone, over = asyncio.Event(), asyncio.Event()

            async def sweep(broker: RedisBroker) -> None:
                while not over.is_set():
                    with contextlib.suppress(BrokerUnavailable):
                        recovered.append(await broker.recover())
                    await asyncio.sleep(lease / 5)

            async def renew() -> None:
                while not gone.is_set():
                    with contextlib.suppress(BrokerUnavailable):
                        renewed.extend(await brokers[0].extend(held))
                    await asyncio.sleep(lease / 5)

            tasks = [asyncio.create_task(work) for work in (renew(), *map(sweep, brokers[1:]))]
            await asyncio.sleep(2 * lease)
            redis_server.freeze()
            try:
                for _ in range(3):
                    with pytest.raises(BrokerUnavailable):
                        await brokers[3].claim(["celery"], limit=3)
                await asyncio.sleep(2 * lease)
            finally:
                redis_server.thaw()
            await asyncio.sleep(2.5 * lease)
            assert not any(recovered)
            assert all(renewed)
            # The claims that came late took nothing.
            assert bodies(await take(brokers[3])) == [str(n) for n in range(10, 20)]
            gone.set()
            async with asyncio.timeout(10):
                while sum(recovered) < 10:
                    await asyncio.sleep(0.001)
            over.set()
            await asyncio.gather(*tasks)

    async def test_a_full_server(self, broker, server):
        await broker.send([message("a"), message("b"), message("parked", due=time.time() - 1)])
        held = await take(broker, limit=1)
        server.config_set("maxmemory", 1)
        try:
            with pytest.raises(BrokerUnavailable, match=r"cannot do this at the moment: .*maxmemory"):
                await broker.send([message("c")])
            # What is there can be worked off, and what is held stays held.
            held += await take(broker)
            assert bodies(held) == ["a", "b", "parked"]
            assert await broker.extend(held) == [True, True, True]
            finishes = [Finish(delivery, (message("follow-up"),)) for delivery in held]
            assert await broker.finish(finishes) == [True, True, True]
        finally:
            server.config_set("maxmemory", 0)
        assert bodies(await take(broker)) == ["follow-up"] * 3

    async def test_a_replica(self, broker, server):
        await broker.send([message("a")])
        server.replicaof("127.0.0.1", "1")
        try:
            with pytest.raises(BrokerUnavailable, match="cannot do this at the moment"):
                await take(broker)
        finally:
            server.replicaof("NO", "ONE")
        assert bodies(await take(broker)) == ["a"]

    async def test_no_more_clients(self, broker, server, redis_url):
        server.config_set("maxclients", len(server.client_list()))
        try:
            with pytest.raises(BrokerUnavailable, match="max number of clients"):
                await open_broker(redis_url).__aenter__()
        finally:
            server.config_set("maxclients", 1000)

    async def test_a_user_who_may_not(self, broker, server, redis_server):
        server.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@all", "-evalsha", "-info")
        url = f"redis://reader:secret@127.0.0.1:{redis_server.port}/0"
        try:
            async with open_broker(url) as limited:
                with pytest.raises(Exception, match="Extend the user's ACL") as caught:
                    await limited.send([message("a")])
                assert "secret" not in str(caught.value)
        finally:
            server.execute_command("ACL", "DELUSER", "reader")


async def test_over_a_socket_file(redis_server: RedisServer, redis_url):
    async with open_broker(f"unix://{redis_server.socket_path}") as broker:
        await broker.send([message("a")])
        await broker.wait(["celery"], timeout=10)
        assert bodies(await take(broker)) == ["a"]
