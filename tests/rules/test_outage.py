"""One operation probes a server that is gone, the others wait for its news."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from aioretryq.errors import BrokerError, BrokerUnavailable
from aioretryq.outage import Outage
from queues import soon, until


class Server:
    """Is there or not; notes who asks, and how many at once."""

    def __init__(self):
        self.there = asyncio.Event()
        self.asked = []
        self.at_once = 0
        self.most_at_once = 0

    def operation(self, name="x", error=None):
        async def ask():
            self.asked.append(name)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                await asyncio.sleep(0)
                if error is not None or not self.there.is_set():
                    raise error or BrokerUnavailable("connection refused")
                return name
            finally:
                self.at_once -= 1

        return ask


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def outage(caplog):
    caplog.set_level(logging.DEBUG, "aioretryq")
    return Outage("The server")


@pytest.fixture
def told(caplog):
    def told(level=logging.WARNING):
        return [record.getMessage() for record in caplog.records if record.levelno == level]

    return told


def start(outage, *operations):
    return [asyncio.create_task(outage.survive(operation)) for operation in operations]


async def test_nothing_is_said_of_a_server_that_is_there(server, outage, caplog):
    server.there.set()
    assert await outage.survive(server.operation("a")) == "a"
    assert (server.asked, caplog.records) == (["a"], [])


async def test_one_line_when_it_goes_and_one_when_it_is_back(server, outage, told):
    waiting = start(outage, *map(server.operation, "abcde"))
    await until(lambda: len(server.asked) > 12)
    server.there.set()
    assert await soon(asyncio.gather(*waiting)) == list("abcde")
    gone, back = told()
    assert gone == "The server is gone, trying again until it is back: connection refused"
    assert back.startswith("The server is back after ")


async def test_a_quiet_one_tells_it_to_those_who_want_to_debug(server, told):
    outage = Outage("The server", quiet=True)
    logging.getLogger("aioretryq").setLevel(logging.DEBUG)
    waiting = start(outage, server.operation())
    await until(lambda: len(server.asked) > 2)
    server.there.set()
    await soon(asyncio.gather(*waiting))
    assert not told()
    assert len(told(logging.DEBUG)) == 2


async def test_one_probes_and_they_take_turns(server, outage):
    waiting = start(outage, server.operation("first"))
    await until(lambda: server.asked)
    waiting += start(outage, *[server.operation(str(n)) for n in range(20)])
    await until(lambda: len(server.asked) > 6)
    assert server.most_at_once == 1
    assert len(set(server.asked)) > 4, "who has just failed waits behind the others"
    server.there.set()
    await soon(asyncio.gather(*waiting))


async def test_all_go_on_at_once_when_it_is_back(server, outage):
    waiting = start(outage, *[server.operation(str(n)) for n in range(200)])
    await until(lambda: len(server.asked) > 206)
    server.there.set()
    started = time.monotonic()
    await soon(asyncio.gather(*waiting))
    assert time.monotonic() - started < 1.5


async def test_probes_are_no_more_than_a_second_apart_and_cost_next_to_nothing(server, outage):
    waiting = start(outage, *[server.operation(str(n)) for n in range(50)])
    await until(lambda: len(server.asked) > 50)
    before, asked = time.process_time(), len(server.asked)
    await asyncio.wait(waiting, timeout=3)
    assert time.process_time() - before < 0.1
    assert 2 < len(server.asked) - asked < 40
    server.there.set()
    await soon(asyncio.gather(*waiting))


async def test_news_from_elsewhere_ends_the_backoff(server, outage):
    waiting = start(outage, *map(server.operation, "abc"))
    await until(lambda: len(server.asked) > 9)
    server.there.set()
    outage.up()
    await asyncio.sleep(0)
    started = time.monotonic()
    await soon(asyncio.gather(*waiting))
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize("moment", range(6))
async def test_a_cancelled_prober_hands_over(server, outage, moment):
    waiting = start(outage, *map(server.operation, "abc"))
    await until(lambda: len(server.asked) > 2 + moment)
    for _ in range(moment % 3):
        await asyncio.sleep(0)
    for task in waiting[:2]:
        task.cancel()
    await asyncio.wait(waiting[:2])
    asked = len(server.asked)
    await until(lambda: len(server.asked) > asked + 1)
    server.there.set()
    assert await soon(waiting[2]) == "c"


async def test_cancelled_at_the_moment_of_being_given_the_turn(server, outage):
    hanging = asyncio.Event()

    async def hang():
        outage.down(BrokerUnavailable("gone"))
        hanging.set()
        await asyncio.Event().wait()

    outage.down(BrokerUnavailable("gone"))
    (prober,) = start(outage, hang)
    await hanging.wait()
    second, third = start(outage, *map(server.operation, "bc"))
    await asyncio.sleep(0)
    prober.cancel()
    await asyncio.wait([prober])  # the turn is with the second now, which does not know yet
    second.cancel()
    server.there.set()
    assert await soon(third) == "c"


async def test_a_slow_probe_does_not_hold_up_the_others(server, outage):
    outage.down(BrokerUnavailable("gone"))
    started = asyncio.Event()

    async def hang():
        started.set()
        await asyncio.Event().wait()

    (slow,) = start(outage, hang)
    await soon(started.wait())
    server.there.set()
    assert await soon(outage.survive(server.operation("b"))) == "b"
    slow.cancel()
    await asyncio.wait([slow])
    assert await soon(outage.survive(server.operation("c"))) == "c"


async def test_one_that_never_succeeds_does_not_keep_the_others_from_it(server, outage, told):
    server.there.set()
    (poisoned,) = start(outage, server.operation("never", error=BrokerUnavailable("out of memory")))
    await until(lambda: len(server.asked) > 2)
    for n in range(20):
        assert await soon(outage.survive(server.operation(n))) == n
    assert not poisoned.done()
    assert len(told()) <= 2, "a server that comes and goes does not fill the log"
    assert server.asked.count("never") < 100
    poisoned.cancel()
    await asyncio.wait([poisoned])


async def test_an_outage_that_came_soon_after_another_is_told_once_it_lasts(told):
    now = [0.0]
    outage = Outage("The server", clock=lambda: now[0])
    for _ in range(3):
        outage.down(BrokerUnavailable("gone"))
        outage.up()
    assert len(told()) == 2
    outage.down(BrokerUnavailable("gone"))
    now[0] = 6.0
    outage.down(BrokerUnavailable("gone"))
    outage.down(BrokerUnavailable("gone"))
    outage.up()
    assert told()[2:] == [
        "The server is gone, trying again until it is back: gone",
        "The server is back after 6.0 s",
    ]


async def test_an_outage_that_goes_on_is_told_again_now_and_then(told):
    now = [0.0]
    outage = Outage("The server", clock=lambda: now[0])
    for now[0] in (0.0, 1.0, 299.0, 300.0, 301.0, 599.0, 600.0):
        outage.down(BrokerUnavailable("gone"))
    outage.up()
    assert told() == [
        "The server is gone, trying again until it is back: gone",
        "The server is still gone after 300 s: gone",
        "The server is still gone after 600 s: gone",
        "The server is back after 600.0 s",
    ]


async def test_another_error_is_told_but_not_more_than_once_in_five_seconds(told):
    now = [0.0]
    outage = Outage("The server", clock=lambda: now[0])
    for now[0], text in ((0.0, "refused"), (4.9, "loading"), (5.0, "loading"), (6.0, "refused"), (9.9, "loading")):
        outage.down(BrokerUnavailable(text))
    now[0] = 305.0
    outage.down(BrokerUnavailable("loading"))
    assert told() == [
        "The server is gone, trying again until it is back: refused",
        "The server is still gone after 5 s: loading",
        "The server is still gone after 305 s: loading",
    ]


async def test_a_failure_of_the_outage_before_is_no_new_one(server, outage, told):
    failing = asyncio.Event()
    tries = []

    async def late():
        tries.append(1)
        if len(tries) == 1:
            await failing.wait()
            raise BrokerUnavailable("no reply")
        return "late"

    (waiting,) = start(outage, late)
    await asyncio.sleep(0)
    outage.down(BrokerUnavailable("gone"))
    outage.up()
    failing.set()
    assert await soon(waiting) == "late"
    assert len(told()) == 2


async def test_a_refusal_is_no_outage_and_passes_the_turn_on(server, outage):
    outage.down(BrokerUnavailable("gone"))
    refused, waiting = start(outage, server.operation("a", error=BrokerError("no")), server.operation("b"))
    server.there.set()
    with pytest.raises(BrokerError):
        await soon(refused)
    assert await soon(waiting) == "b"
