"""What Redis says and does when it cannot work at the moment, and connections that end."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time

import pytest
import redis

from aioretryq.config import Settings
from aioretryq.drivers.redis import RedisServer as Driver
from aioretryq.drivers.redis import close
from aioretryq.errors import BrokerError, BrokerUnavailable
from queues import soon
from redis_server import RedisServer

LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"


@pytest.fixture
def server():
    server = RedisServer()
    server.start()
    yield server
    server.close()


@contextlib.asynccontextmanager
async def connected(url, **settings):
    driver = Driver(url, Settings(**settings), BrokerUnavailable, BrokerError)
    client = driver.client("broker")
    try:
        yield driver, client
    finally:
        await close(client)


async def failure(driver, working):
    with pytest.raises((BrokerUnavailable, BrokerError)) as caught, driver.errors():
        await soon(working)
    assert isinstance(caught.value.__cause__, (redis.RedisError, OSError))
    return caught.value


@contextlib.asynccontextmanager
async def answering(*answers):
    """A server that gives each command the next of these answers, and the last one for ever."""
    left = list(answers)

    async def serve(reader, writer):
        with contextlib.closing(writer), contextlib.suppress(OSError):
            while received := await reader.read(4096):
                if b"SETNAME" in received or b"SETINFO" in received:
                    writer.write(b"+OK\r\n" * received.count(b"*"))
                else:
                    writer.write(left.pop(0) if len(left) > 1 else left[0])

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0"
    finally:
        listening.close()


@pytest.mark.parametrize(
    "answer",
    [
        LOADING,
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)\r\n",
        b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.\r\n",
        b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
        b"-ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write.\r\n",
    ],
)
async def test_what_passes(answer):
    async with answering(answer, answer, b"+OK\r\n") as url, connected(url) as (driver, client):
        told = await failure(driver, client.set("key", "value"))
        assert type(told) is BrokerUnavailable
        assert "cannot do this at the moment" in str(told)
        assert not told.maybe_done, "the server has said that it did not"
        told = await failure(driver, client.get("key"))
        assert type(told) is BrokerUnavailable
        assert await client.set("key", "value")


async def test_a_full_server(server):
    with redis.Redis.from_url(server.url) as admin:
        admin.config_set("maxclients", 1)
        async with connected(server.url) as (driver, client):
            told = await failure(driver, client.set("key", "value"))
            assert type(told) is BrokerUnavailable
            assert not told.maybe_done
            admin.config_set("maxclients", 100)
            assert await client.set("key", "value")


async def test_after_a_failover_new_connections_are_made(server, tmp_path):
    address = tmp_path / "redis.sock"
    address.symlink_to(server.socket_path)
    promoted = RedisServer()
    promoted.start()
    try:
        async with connected(f"unix://{address}") as (driver, client):
            await asyncio.gather(*(client.set("key", "old") for _ in range(2)))
            with redis.Redis.from_url(server.url) as admin:
                admin.replicaof("127.0.0.1", promoted.port)
            address.unlink()
            address.symlink_to(promoted.socket_path)
            failures = 0
            for _ in range(4):
                try:
                    with driver.errors():
                        await client.set("key", "new")
                except BrokerUnavailable:
                    failures += 1
            assert 1 <= failures <= 2, "one for each connection to the old master"
            with redis.Redis.from_url(promoted.url) as admin:
                assert admin.get("key") == b"new"
    finally:
        promoted.close()


async def test_a_host_that_has_no_address():
    async with connected("redis://no-such-host.invalid/0") as (driver, client):
        told = await failure(driver, client.set("key", "value"))
        assert type(told) is BrokerUnavailable
        assert not told.maybe_done


async def test_whether_it_may_have_been_done(server):
    async with connected(server.url) as (driver, client):
        await client.ping()
        server.freeze()
        sending = asyncio.create_task(failure(driver, client.set("key", "value")))
        await asyncio.sleep(0.1)
        server.kill()
        assert (await sending).maybe_done, "the reply is missing"
        assert not (await failure(driver, client.set("key", "value"))).maybe_done, "nobody was there"


async def test_no_file_descriptors_left(server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with connected(server.url) as (driver, client):
        probe = socket.socket()
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno() + 1, hard))
        taken = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(socket.socket())
            told = await failure(driver, client.set("key", "value"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in (probe, *taken):
                each.close()
        assert type(told) is BrokerError, "trying again and again would not help"
        assert "ulimit -n" in str(told)
        assert await client.set("key", "value")


async def test_closing_with_a_silent_peer_and_much_that_is_unsent(server):
    async with connected(server.url, redis_socket_timeout=60) as (_, client):
        await asyncio.gather(*(client.ping() for _ in range(2)))
        server.freeze()
        large = b"x" * 2**26  # more than the buffers of the system hold
        sending = [asyncio.create_task(client.set("key", large)) for _ in range(2)]
        await asyncio.wait(sending, timeout=0.2)
        started = time.monotonic()
        await close(client)
        assert time.monotonic() - started < 1
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)


async def test_a_connection_attempt_has_its_own_deadline():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
        async with connected(url, redis_socket_timeout=0.3, broker_connection_timeout=0.3) as (driver, client):
            started = time.monotonic()
            told = await failure(driver, client.set("key", "value"))
            assert time.monotonic() - started < 5
            assert "does not answer" in str(told)
            assert not told.maybe_done


def block(seconds):
    """As a task does that computes for long, or waits without `await`."""
    time.sleep(seconds)


async def test_a_late_event_loop_is_no_missing_reply(redis_url):
    async with connected(redis_url, redis_socket_timeout=0.6) as (_, client):
        before = await client.client_id()
        with redis.Redis.from_url(redis_url) as admin:
            admin.client_pause(300, all=True)
        asking = asyncio.create_task(client.client_id())
        await asyncio.sleep(0.05)
        block(1.0)  # the reply comes, then the deadline passes
        assert await soon(asking) == before
