"""Our own connection to Redis, shared by many callers: what is asked, answered, lost, and made anew."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import shutil
import subprocess
import time
import weakref

import pytest
import redis
import uvloop
from faults.proxy import Proxy
from hypothesis import given
from hypothesis import strategies as st

from aioretryq.config import Settings
from aioretryq.drivers.redis import RedisServer as Driver
from aioretryq.drivers.redis_line import Line, Script
from aioretryq.drivers.redis_wire import PIECE, open_wire
from aioretryq.errors import BrokerError, BrokerUnavailable
from queues import soon
from redis_server import RedisServer, free_port


def on_each_loop(test):
    """Runs it on asyncio's event loop and on uvloop's."""

    @pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
    def run(new_loop, **fixtures):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test(**fixtures))

    own = inspect.signature(test)
    new_loop = inspect.Parameter("new_loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = own.replace(parameters=[new_loop, *own.parameters.values()])
    return run


@pytest.fixture
def server():
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def admin(server):
    with redis.Redis.from_url(server.url) as admin:
        yield admin


@pytest.fixture
def proxy(server):
    proxy = Proxy(server.port)
    proxy.start()
    yield proxy
    proxy.close()


def driver(url, **settings):
    return Driver(url, Settings(**settings), BrokerUnavailable, BrokerError)


@contextlib.asynccontextmanager
async def calling(url, **settings):
    line = Line(driver(url, **settings), "broker")
    try:
        yield line
    finally:
        await line.close()


async def failure(working):
    with pytest.raises((BrokerUnavailable, BrokerError)) as caught:
        await soon(working)
    assert isinstance(caught.value.__cause__, (redis.RedisError, OSError))
    return caught.value


class Peer:
    """Welcomes its clients as Redis does, and then says what a test wants it to say."""

    def __init__(self):
        self.heard = b""
        self.accepted = 0
        self._news = asyncio.Event()
        self._writer = None

    async def __aenter__(self):
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_):
        self._listening.close()
        if self._writer is not None:
            self._writer.transport.abort()

    async def _serve(self, reader, writer):
        self.accepted += 1
        with contextlib.closing(writer), contextlib.suppress(OSError):
            while received := await reader.read(PIECE):
                if b"SETNAME" in received or b"SETINFO" in received:
                    writer.write(b"+OK\r\n" * received.count(b"*"))
                    continue
                self.heard, self._writer = self.heard + received, writer
                self._news.set()

    async def hears(self, text):
        while text not in self.heard:
            self._news.clear()
            await soon(self._news.wait())

    def say(self, text):
        self._writer.write(text)

    def hang_up(self):
        self._writer.close()


async def asked(line, peer, word="first"):
    """A command whose answer is still to come."""
    asking = asyncio.create_task(line.call("ECHO", word))
    await peer.hears(word.encode())
    return asking


# -- order


@on_each_loop
async def test_everybody_gets_his_own_answer(server):
    async with calling(server.url) as line:

        async def ask(number):
            return await line.call("ECHO", f"{number} " + "x" * (number * 7919 % 5000))

        answers = await soon(asyncio.gather(*map(ask, range(3000))))
        assert [int(answer.split()[0]) for answer in answers] == list(range(3000))


@on_each_loop
async def test_a_few_large_ones_among_many_small_ones(server):
    async with calling(server.url) as line:
        large = [b"%d" % number * 2**20 for number in range(10)]

        async def one(number):
            if number % 100:
                assert await line.call("ECHO", str(number)) == b"%d" % number
            else:
                assert await line.call("ECHO", large[number // 100]) == large[number // 100]

        await soon(asyncio.gather(*map(one, range(1000))))


@on_each_loop
async def test_a_very_large_answer(server, admin):
    async with calling(server.url) as line:
        large = b"0123456789" * 5_000_000
        admin.set("large", large)
        answer, after = await soon(asyncio.gather(line.call("GET", "large"), line.call("ECHO", "after")))
        assert answer == large
        assert after == b"after"


@on_each_loop
async def test_what_one_turn_asks_for_is_written_together():
    async with Peer() as peer, calling(peer.url) as line:
        asking = [await asked(line, peer)]
        asking += [asyncio.create_task(line.call("ECHO", str(n))) for n in range(100)]
        await peer.hears(b"$2\r\n99\r\n")
        peer.say(b"$1\r\nx\r\n" * 101)
        assert await soon(asyncio.gather(*asking)) == [b"x"] * 101


@on_each_loop
async def test_commands_together(server):
    async with calling(server.url) as line:
        answers = await line.call_all([("SET", "k", "v"), ("GET", "k"), ("GET", "none"), ("INCR", "n")])
        assert answers == [b"OK", b"v", None, 1]
        told = await failure(line.call_all([("INCR", "k"), ("SET", "after", "1")]))
        assert "not an integer" in str(told)
        assert await line.call("GET", "after") == b"1"


@on_each_loop
async def test_a_transaction(server, admin):
    async with calling(server.url) as line:
        assert await line.transaction([("SET", "k", "v"), ("INCR", "n")]) == [b"OK", 1]
        assert "not an integer" in str(await failure(line.transaction([("INCR", "k"), ("INCR", "n")])))
        admin.config_set("maxmemory", 1)
        told = await failure(line.transaction([("GET", "k"), ("SET", "k", "w")]))
        assert isinstance(told, BrokerUnavailable)
        assert "memory" in str(told)
        assert not told.maybe_done


@on_each_loop
async def test_nobody_comes_between_the_commands_of_a_transaction(server):
    async with calling(server.url) as line:

        async def both():
            return await line.transaction([("INCR", "n"), ("INCR", "n")])

        others = [line.call("INCR", "n") for _ in range(50)]
        answers = await soon(asyncio.gather(*(both() for _ in range(50)), *others))
        assert all(second == first + 1 for first, second in answers[:50])


@on_each_loop
async def test_what_cannot_be_written_is_not_written_in_part(server, admin):
    """The MULTI before it would be open for everybody who shares the connection."""
    async with calling(server.url) as line:
        before = await line.call("CLIENT", "ID")
        script = Script(line, "return redis.call('SET', KEYS[1], ARGV[1])")
        bad = ("SET", "half a pair \ud800", b"x" * 1000)
        for working in (line.transaction([("SET", "k", "v"), bad]), line.call_all([("SET", "k", "v"), bad]),
                        line.call(*bad), script(["\ud800"], [1])):  # fmt: skip
            told = await failure(working)
            assert type(told) is BrokerError
            assert "Nothing was sent" in str(told)
            assert "\\ud800" in str(told)
        with pytest.raises(TypeError):
            await line.transaction([("SET", "k", "v"), ("SET", "k", object())])
        assert admin.keys() == []
        await script(["k"], [1])
        assert admin.get("k") == b"1"
        assert await line.call("CLIENT", "ID") == before


@on_each_loop
async def test_a_script_within_a_transaction_of_somebody(server, admin):
    async with calling(server.url) as line:
        script = Script(line, "return redis.call('INCR', KEYS[1])")
        await script(["k"], [])
        await line.call("MULTI")
        told = await failure(script(["k"], []))
        assert type(told) is BrokerUnavailable
        assert "transaction is open" in str(told)
        assert await script(["k"], []) == 2


# -- any pieces


def encoded(value):
    match value:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % value
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
        case str():
            return b"-ERR %b\r\n" % value.encode()
        case list():
            return b"*%d\r\n" % len(value) + b"".join(map(encoded, value))


def shown(value):
    """Errors have no equality of their own."""
    if isinstance(value, list):
        return [shown(each) for each in value]
    return str(value) if isinstance(value, redis.ResponseError) else value


WORDS = st.text("abc xyz", min_size=1, max_size=20).map(str.strip).filter(bool)
REPLIES = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=3000) | WORDS.map(lambda text: f"x {text}"),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=10,
)


@given(st.lists(REPLIES, max_size=20), st.lists(st.integers(1, 400), min_size=1))
def test_answers_may_come_in_any_pieces(expected, sizes):
    async def main():
        async with Peer() as peer:
            wire = await open_wire(driver(peer.url), "broker")
            answers = [wire.send(("PING",)) for _ in expected]
            stream = b"".join(map(encoded, expected))
            while stream:
                sizes.append(sizes.pop(0))
                piece, stream = stream[: sizes[0]], stream[sizes[0] :]
                wire.get_buffer(-1)[: len(piece)] = piece
                wire.buffer_updated(len(piece))
            assert [shown(answer.result()) for answer in answers] == expected
            wire.close()

    asyncio.run(main())


# -- cancellation


@on_each_loop
async def test_whoever_is_cancelled_only_loses_interest(server):
    """In whatever state: while it connects, unwritten, written, answered."""
    async with calling(server.url) as line:
        clients = set()
        for turns in range(12):
            asking = [asyncio.create_task(line.call("ECHO", f"{turns}-{n}")) for n in range(9)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for each in asking[::2]:
                each.cancel()
            answers = await soon(asyncio.gather(*asking, return_exceptions=True))
            assert [answers[n] for n in (1, 3, 5, 7)] == [f"{turns}-{n}".encode() for n in (1, 3, 5, 7)]
            clients.add(await line.call("CLIENT", "ID"))
        assert len(clients) == 1


@on_each_loop
async def test_all_are_cancelled_while_it_connects(server, admin):
    async with calling(server.url) as line:
        for turns in range(6):
            asking = [asyncio.create_task(line.call("PING")) for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for each in asking:
                each.cancel()
            await soon(asyncio.wait(asking))
            admin.client_kill_filter(_type="normal", skipme=True)
        with contextlib.suppress(BrokerUnavailable):
            await soon(line.call("PING"))  # the attempt that was under way
        assert await soon(line.call("ECHO", "alive")) == b"alive"


# -- what is wrong with answers


@pytest.mark.parametrize("half", [b"$10\r\nabc", b"*2\r\n:1\r\n", b"+O", b""])
@on_each_loop
async def test_half_an_answer_and_then_the_end(half):
    async with Peer() as peer, calling(peer.url) as line:
        asking = await asked(line, peer)
        peer.say(half)
        peer.hang_up()
        told = await failure(asking)
        assert type(told) is BrokerUnavailable
        assert told.maybe_done
        assert "Is the server running" in str(told)


@on_each_loop
async def test_half_an_answer_and_then_nothing():
    async with Peer() as peer, calling(peer.url, redis_socket_timeout=0.3) as line:
        asking = await asked(line, peer)
        peer.say(b"$10\r\nabc")
        told = await failure(asking)
        assert "does not answer" in str(told)
        assert told.maybe_done


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$x\r\n", b"\x00\xff\r\n", b"+OK\r\n" * 2])
@on_each_loop
async def test_what_is_no_answer(said):
    async with Peer() as peer, calling(peer.url) as line:
        asking = await asked(line, peer)
        peer.say(said)
        told = (await soon(asyncio.gather(asking, return_exceptions=True)))[0]
        if said.startswith(b"+"):
            assert told == b"OK"
        else:
            assert type(told) is BrokerUnavailable
            assert "cannot be read" in str(told)
            assert told.maybe_done, "it was written, and who knows what was done"
        again = await asked(line, peer, "second")
        assert peer.accepted == 2, "who says such things is not listened to any more"
        peer.say(b"+fine\r\n")
        assert await soon(again) == b"fine"


@on_each_loop
async def test_an_error_is_that_of_one_caller(server, admin):
    async with calling(server.url) as line:
        admin.set("text", "no number")
        asking = [failure(line.call("INCR", "text")), line.call("ECHO", "a"), failure(line.call("NONSENSE"))]
        wrong, right, unknown = await soon(asyncio.gather(*asking))
        assert "not an integer" in str(wrong)
        assert right == b"a"
        assert "unknown command" in str(unknown)
        assert await line.call("PING") == b"PONG"


# -- deadlines


@on_each_loop
async def test_a_frozen_server_and_many_callers(server):
    async with calling(server.url, redis_socket_timeout=0.5) as line:
        await line.call("PING")
        server.freeze()
        started = time.monotonic()
        told = await asyncio.gather(*(failure(line.call("SET", f"k{n}", "v")) for n in range(200)))
        assert 0.4 < time.monotonic() - started < 5
        assert {type(each) for each in told} == {BrokerUnavailable}
        assert all("does not answer" in str(each) for each in told)
        server.thaw()
        assert await soon(line.call("PING")) == b"PONG"


@on_each_loop
async def test_the_deadline_is_that_of_each_command(server):
    """A timer that was set for an earlier command does not end a later one too early, or too late."""
    async with calling(server.url, redis_socket_timeout=0.6) as line:
        await line.call("PING")
        await asyncio.sleep(0.4)
        server.freeze()
        started = time.monotonic()
        assert "does not answer" in str(await failure(line.call("PING")))
        assert 0.5 < time.monotonic() - started < 3


class Held:
    """What a request of a web framework holds, say."""


HELD: contextvars.ContextVar[Held] = contextvars.ContextVar("held")


@on_each_loop
async def test_nobodys_context_is_kept(server):
    async with calling(server.url) as line:

        async def first():
            held = Held()
            HELD.set(held)
            await line.call("PING")
            return weakref.ref(held)

        found = await asyncio.create_task(first())
        await line.call("PING")
        gc.collect()
        assert found() is None


@on_each_loop
async def test_a_silent_network(proxy):
    async with calling(f"redis://127.0.0.1:{proxy.port}/0", redis_socket_timeout=0.3) as line:
        await line.call("PING")
        proxy.black_hole()
        assert "does not answer" in str(await failure(line.call("PING")))
        told = await failure(line.call("PING"))
        assert not told.maybe_done, "it could not even log in"
        proxy.heal()
        assert await soon(line.call("PING")) == b"PONG"


def block(seconds):
    """As a task does that computes for long, or waits without `await`."""
    time.sleep(seconds)


@on_each_loop
async def test_a_late_event_loop_is_no_missing_answer(server, admin):
    async with calling(server.url, redis_socket_timeout=0.5) as line:
        before = await line.call("CLIENT", "ID")
        admin.client_pause(250, all=True)
        asking = [asyncio.create_task(line.call(*command)) for command in [("CLIENT", "ID"), ("ECHO", b"x" * 10**6)]]
        await asyncio.sleep(0.05)
        block(0.8)  # the answers come, then the deadline passes
        assert await soon(asyncio.gather(*asking)) == [before, b"x" * 10**6]


@on_each_loop
async def test_an_answer_that_takes_long_to_arrive_is_not_missing(proxy, admin):
    """Over a slow link a claim of large messages takes longer than a server has to answer: silence is what counts."""
    large = b"x" * 2**21
    admin.set("k", large)
    async with calling(f"redis://127.0.0.1:{proxy.port}/0", redis_socket_timeout=0.5) as line:
        before = await line.call("CLIENT", "ID")
        proxy.delay(0.1)  # for each 64 kB
        asking = [asyncio.create_task(line.call(*command)) for command in [("GET", "k"), ("CLIENT", "ID")]]
        assert await soon(asyncio.gather(*asking)) == [large, before]


# -- lost and made anew


@on_each_loop
async def test_one_attempt_for_all_who_wait(server, proxy):
    async with calling(f"redis://127.0.0.1:{proxy.port}/0") as line:
        await asyncio.gather(*(line.call("PING") for _ in range(50)))
        assert proxy.accepted == 1
        asking = [asyncio.create_task(failure(line.call("BLPOP", "none", 60))) for _ in range(20)]
        await asyncio.sleep(0.05)
        proxy.drop()
        assert all(told.maybe_done for told in await asyncio.gather(*asking))
        await asyncio.gather(*(line.call("PING") for _ in range(50)))
        assert proxy.accepted == 2
        server.kill()
        await failure(line.call("PING"))
        told = await asyncio.gather(*(failure(line.call("PING")) for _ in range(50)))
        assert not any(each.maybe_done for each in told)
        server.start()
        assert await asyncio.gather(*(line.call("PING") for _ in range(50))) == [b"PONG"] * 50


@on_each_loop
async def test_a_server_that_was_restarted_meanwhile(server):
    async with calling(server.url) as line:
        assert await line.call("PING") == b"PONG"
        server.restart()
        await asyncio.sleep(0.05)
        assert await soon(line.call("PING")) == b"PONG", "its end was told, and nothing was under way"


@on_each_loop
async def test_killed_again_and_again(server, admin):
    async with calling(server.url) as line:

        async def ask(number):
            try:
                return await line.call("ECHO", str(number))
            except BrokerUnavailable:
                return None

        answers = []
        for turn in range(20):
            asking = [asyncio.create_task(ask(turn * 100 + n)) for n in range(100)]
            await asyncio.sleep(0)
            admin.client_kill_filter(_type="normal", skipme=True)
            answers += await soon(asyncio.gather(*asking))
        assert len(answers) == 2000
        assert all(answer in (None, b"%d" % number) for number, answer in enumerate(answers))
        assert await soon(line.call("ECHO", "alive")) == b"alive"


@on_each_loop
async def test_what_was_never_written(server):
    """Behind a full buffer commands wait here: it is known that the server has not seen them."""
    async with calling(server.url, redis_socket_timeout=60) as line:
        await line.call("PING")
        server.freeze()
        first = asyncio.create_task(failure(line.call("SET", "k", b"x" * 2**26)))
        await asyncio.sleep(0.2)
        others = [asyncio.create_task(failure(line.call("SET", f"k{n}", "v"))) for n in range(10)]
        await asyncio.sleep(0.1)
        server.kill()
        assert (await soon(first)).maybe_done
        assert not any(told.maybe_done for told in await soon(asyncio.gather(*others)))


@on_each_loop
async def test_a_slow_server_and_much_to_send(server):
    async with calling(server.url) as line:
        await line.call("PING")
        server.freeze()
        large = [b"%d" % n * 2**20 for n in range(20)]
        asking = [asyncio.create_task(line.call("ECHO", each)) for each in large]
        await asyncio.sleep(0.3)
        server.thaw()
        assert await soon(asyncio.gather(*asking)) == large


@on_each_loop
async def test_after_a_failover(server, tmp_path):
    address, promoted = tmp_path / "redis.sock", RedisServer()
    address.symlink_to(server.socket_path)
    promoted.start()
    try:
        async with calling(f"unix://{address}") as line:
            await line.call("SET", "key", "old")
            with redis.Redis.from_url(server.url) as admin:
                admin.replicaof("127.0.0.1", promoted.port)
            address.unlink()
            address.symlink_to(promoted.socket_path)
            writing, reading = failure(line.call("SET", "key", "new")), line.call("PING")
            told, answer = await soon(asyncio.gather(writing, reading))
            assert "cannot do this at the moment" in str(told)
            assert not told.maybe_done
            assert answer == b"PONG", "what was under way is answered"
            await line.call("SET", "key", "new")
            with redis.Redis.from_url(promoted.url) as admin:
                assert admin.get("key") == b"new"
    finally:
        promoted.close()


@on_each_loop
async def test_closing_ends_a_connection_to_a_master_of_the_past(server, admin):
    async with calling(server.url, redis_socket_timeout=60) as line:
        await line.call("PING")
        admin.replicaof("127.0.0.1", free_port())
        writing = asyncio.create_task(failure(line.call("SET", "k", "v")))
        waiting = asyncio.create_task(failure(line.call("XREAD", "BLOCK", "60000", "STREAMS", "none", "$")))
        assert "cannot do this at the moment" in str(await soon(writing))
        await line.call("PING")  # on another connection
        await line.close()
        assert "closed here" in str(await soon(waiting))


@on_each_loop
async def test_a_password_that_was_changed(server, admin):
    async with calling(server.url) as line:
        await line.call("PING")
        admin.config_set("requirepass", "new")
        admin.client_kill_filter(_type="normal", skipme=True)
        await asyncio.sleep(0.05)
        told = await asyncio.gather(*(failure(line.call("PING")) for _ in range(10)))
        assert {type(each) for each in told} == {BrokerError}
        assert all("Check the user and the password" in str(each) for each in told)
        admin.config_set("requirepass", "")
        assert await soon(line.call("PING")) == b"PONG"


# -- scripts


@on_each_loop
async def test_scripts_are_loaded_when_they_are_missing(server, admin):
    async with calling(server.url) as line:
        script = Script(line, "return {KEYS[1], ARGV[1]}")
        for _ in range(3):
            answers = await soon(asyncio.gather(*(script(["k"], [n]) for n in range(50))))
            assert answers == [[b"k", b"%d" % n] for n in range(50)]
            admin.script_flush()


@on_each_loop
async def test_scripts_of_a_user_who_may_not_load_them(server, admin):
    admin.execute_command("ACL", "SETUSER", "plain", "reset", "on", ">secret", "+@all", "-script", "~*")
    async with calling(server.url.replace("//", "//plain:secret@")) as line:
        script = Script(line, "return redis.call('INCR', KEYS[1])")
        assert [await script(["k"], []) for _ in range(3)] == [1, 2, 3]
        assert admin.script_exists(script._digest) == [True]


@on_each_loop
async def test_a_script_that_fails(server):
    async with calling(server.url) as line:
        for _ in range(2):
            assert "not an integer" in str(
                await failure(Script(line, "return redis.call('INCRBY', KEYS[1], 'x')")(["k"], []))
            )
        assert "compiling" in str(await failure(Script(line, "this is no Lua")([], [])))


# -- the end


@on_each_loop
async def test_closing_in_the_middle(server):
    async with calling(server.url, redis_socket_timeout=60) as line:
        await line.call("PING")
        server.freeze()
        asking = [asyncio.create_task(failure(line.call("SET", "k", b"x" * 2**22))) for _ in range(10)]
        await asyncio.sleep(0.1)
        started = time.monotonic()
        await line.close()
        assert "closed here" in str((await soon(asyncio.gather(*asking)))[0])
        assert time.monotonic() - started < 1
        assert not (await failure(line.call("PING"))).maybe_done, "it stays closed"


@on_each_loop
async def test_closing_while_it_connects(server):
    for turns in range(8):
        async with calling(server.url) as line:
            asking = asyncio.create_task(line.call("PING"))
            for _ in range(turns):
                await asyncio.sleep(0)
            await line.close()
            answer = (await soon(asyncio.gather(asking, return_exceptions=True)))[0]
            assert answer == b"PONG" or isinstance(answer, BrokerUnavailable)


@on_each_loop
async def test_closing_leaves_no_connection(server, admin):
    for _ in range(3):
        async with calling(server.url) as line:
            await line.call("PING")
    async with asyncio.timeout(10):
        while any(client["name"].startswith("aioretryq") for client in admin.client_list()):
            await asyncio.sleep(0.001)


# -- messages that nobody asked for


@on_each_loop
async def test_messages(server, admin):
    heard, lost, news = [], [], asyncio.Event()

    def hear(replies):
        heard.extend(replies)
        news.set()

    wire = await open_wire(driver(server.url), "bus", on_push=hear, on_lost=lost.append)

    async def until_heard(count):
        while len(heard) < count:
            news.clear()
            await soon(news.wait())

    wire.write(("SUBSCRIBE", "a", "b"))
    await until_heard(2)
    wire.write(("GET", "x"))  # not in pub/sub mode
    await until_heard(3)
    for number in range(1000):
        admin.publish("ab"[number % 2], number)
    await until_heard(1003)
    assert heard[:2] == [[b"subscribe", b"a", 1], [b"subscribe", b"b", 2]]
    assert isinstance(heard[2], redis.ResponseError)
    assert [int(message[2]) for message in heard[3:]] == list(range(1000))
    assert wire.open
    admin.client_kill_filter(_type="pubsub")
    async with asyncio.timeout(10):
        while not lost:
            await asyncio.sleep(0.001)
    assert not wire.open
    wire.write(("PING",))
    wire.close()
    assert len(lost) == 1


@on_each_loop
async def test_a_message_that_is_not_understood_ends_the_connection(server, caplog):
    lost = asyncio.get_running_loop().create_future()
    fatal = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: fatal.append(context))

    def hear(replies):
        raise ValueError("who said that?")

    wire = await open_wire(driver(server.url), "bus", on_push=hear, on_lost=lost.set_result)
    wire.write(("SUBSCRIBE", "a"))
    told = await soon(lost)
    assert isinstance(told, redis.ConnectionError)
    assert "who said that?" in str(told)
    assert "not understood" in caplog.text
    assert fatal == []


# -- encrypted


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    """URL of a server that speaks TLS."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder, port = tmp_path_factory.mktemp("tls"), free_port()
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
    server = RedisServer("--tls-port", str(port), "--tls-auth-clients", "no", *files)
    try:
        server.start()
    except RuntimeError:
        pytest.skip(f"{server.version} has no TLS")
    yield server, f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
    server.close()


@on_each_loop
async def test_an_encrypted_connection(encrypted):
    server, url = encrypted
    large = [b"%d" % n * 2**20 for n in range(8)]
    async with calling(url) as line:
        await line.call("PING")
        server.freeze()  # more than what the buffers of the system hold waits
        asking = [asyncio.create_task(line.call("ECHO", each)) for each in large]
        await asyncio.sleep(0.2)
        server.thaw()
        assert await soon(asyncio.gather(*asking)) == large
        with redis.Redis.from_url(server.url) as admin:
            admin.client_kill_filter(_type="normal", skipme=True)
        with contextlib.suppress(BrokerUnavailable):
            await soon(line.call("PING"))
        assert await soon(line.call("ECHO", "again")) == b"again"


@on_each_loop
async def test_an_encrypted_connection_to_a_silent_server(encrypted):
    server, url = encrypted
    async with calling(url, redis_socket_timeout=0.3) as line:
        await line.call("PING")
        server.freeze()
        try:
            assert "does not answer" in str(await failure(line.call("PING")))
        finally:
            server.thaw()
        assert await soon(line.call("PING")) == b"PONG"
