"""What every bus promises (`Bus` in aioretryq/brokers/base.py), as tests to run against each adapter."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING

import pytest

from aioretryq.errors import BrokerUnavailable, NotOpenError
from aioretryq.message import Broadcast

if TYPE_CHECKING:
    from aioretryq.brokers.base import BusListener
    from contracts.broker_world import World

_numbers = itertools.count()


def news(routing_key: str = "", exchange: str = "news") -> Broadcast:
    return Broadcast(exchange, routing_key, b"news %d" % next(_numbers))


async def receive(listener: BusListener, count: int = 1) -> list[Broadcast]:
    heard: list[Broadcast] = []
    async with asyncio.timeout(10):
        while len(heard) < count:
            heard += await listener.receive()
    return heard


async def hears_nothing_but(listener: BusListener, broker, last: Broadcast) -> list[Broadcast]:
    """What was heard before `last`, which is sent now: it comes after everything else."""
    await broker.bus().publish([last])
    heard: list[Broadcast] = []
    while last not in heard:
        heard += await receive(listener)
    assert heard[-1] == last
    return heard[:-1]


class BusContract:
    """Subclass it, and give it a fixture `world`."""

    @pytest.fixture
    async def world(self) -> World:
        raise NotImplementedError("the adapter's test class says how to connect")

    async def test_everybody_who_listens_hears(self, world):
        here, there = await world.connect(), await world.connect()
        async with here.bus().listen("news") as one, there.bus().listen("news") as other:
            sent = [news("a"), news("b.c"), news("")]
            assert await here.bus().publish(sent) == [2, 2, 2]
            assert await receive(one, 3) == sent
            assert await receive(other, 3) == sent

    async def test_nobody_listens(self, world):
        broker = await world.connect()
        assert await broker.bus().publish([news("a")]) == [0]
        assert await broker.bus().publish([]) == []
        async with broker.bus().listen("news") as listener:
            assert await hears_nothing_but(listener, broker, news("last")) == []

    async def test_only_its_own_exchange(self, world):
        broker = await world.connect()
        async with broker.bus().listen("new*") as globs, broker.bus().listen("news") as listener:
            await broker.bus().publish([news("a", "new"), news("a", "newspaper")])
            assert await hears_nothing_but(listener, broker, news("last")) == []
            assert await hears_nothing_but(globs, broker, news("last", "new*")) == []

    @pytest.mark.parametrize(
        ("pattern", "keys"),
        [
            ("#", ["", "a", "a.b", "a.b.c", "b"]),
            ("a.#", ["a", "a.b", "a.b.c"]),
            ("#.b", ["a.b", "b"]),
            ("a.*", ["a.b"]),
            ("*", ["a", "b"]),
            ("a.#.c", ["a.b.c"]),
            ("a", ["a"]),
            ("", [""]),
        ],
    )
    async def test_patterns(self, world, pattern, keys):
        broker = await world.connect()
        async with broker.bus().listen("news", pattern) as listener, broker.bus().listen("news") as everything:
            sent = [news(key) for key in ("", "a", "a.b", "a.b.c", "b")]
            await broker.bus().publish(sent)
            assert await receive(everything, 5) == sent
            assert [heard.routing_key for heard in await receive(listener, len(keys))] == keys

    async def test_several_listeners_of_one_broker(self, world):
        broker = await world.connect()
        async with broker.bus().listen("news", "a.*") as first:
            async with broker.bus().listen("news", "a.*") as second:
                (count,) = await broker.bus().publish([both := news("a.b")])
                assert count >= 1
                assert await receive(second) == [both]
            (count,) = await broker.bus().publish([one := news("a.c")])
            assert count == 1
            assert await receive(first, 2) == [both, one]
        assert await broker.bus().publish([news("a.d")]) == [0]

    async def test_receive_may_be_cancelled(self, world):
        broker = await world.connect()
        async with broker.bus().listen("news") as listener:
            sent = []
            for n in range(20):
                waiting = asyncio.create_task(listener.receive())
                await asyncio.sleep(0)
                await broker.bus().publish([message := news(str(n))])
                sent.append(message)
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    for heard in await waiting:
                        assert heard == sent.pop(0)
            assert await receive(listener, len(sent)) == sent

    async def test_many_and_large(self, world):
        broker = await world.connect()
        async with broker.bus().listen("news") as listener:
            sent = [Broadcast("news", "n", b"%d" % n) for n in range(1000)] + [Broadcast("news", "l", b"x" * 2**20)]
            assert await broker.bus().publish(sent) == [1] * 1001
            assert await receive(listener, 1001) == sent

    # -- inboxes

    async def test_answers_wait_in_the_inbox(self, world):
        asking, answering = await world.connect(), await world.connect()
        async with asking.bus().inbox("replies", "me", ttl=10) as inbox:
            assert await answering.bus().answer(Broadcast("replies", "me", b"1"), ttl=10) == 1
            assert await answering.bus().answer(Broadcast("replies", "me", b"2"), ttl=10) == 1
            assert await answering.bus().answer(Broadcast("replies", "you", b"3"), ttl=10) == 0
            heard = await receive(inbox, 2)
            assert heard == [Broadcast("replies", "me", b"1"), Broadcast("replies", "me", b"2")]
            late = asyncio.create_task(receive(inbox))
            assert await answering.bus().answer(Broadcast("replies", "me", b"4"), ttl=10) == 1
            assert [each.body for each in await late] == [b"4"]
        assert await answering.bus().answer(Broadcast("replies", "me", b"5"), ttl=10) == 0

    async def test_an_inbox_is_new_each_time(self, world):
        broker = await world.connect()
        async with broker.bus().inbox("replies", "me", ttl=10):
            await broker.bus().answer(Broadcast("replies", "me", b"old"), ttl=10)
        async with broker.bus().inbox("replies", "me", ttl=10) as inbox:
            await broker.bus().answer(Broadcast("replies", "me", b"new"), ttl=10)
            assert [each.body for each in await receive(inbox)] == [b"new"]

    async def test_routing_keys_of_inboxes_are_no_patterns(self, world):
        broker = await world.connect()
        async with broker.bus().inbox("replies", "#", ttl=10):
            assert await broker.bus().answer(Broadcast("replies", "a", b"1"), ttl=10) == 0

    async def test_answers_are_not_published(self, world):
        broker = await world.connect()
        async with broker.bus().listen("replies") as listener, broker.bus().inbox("replies", "me", ttl=10):
            assert await broker.bus().answer(Broadcast("replies", "me", b"1"), ttl=10) == 1
            assert await hears_nothing_but(listener, broker, news("last", "replies")) == []

    # -- opening and closing

    async def test_closing_the_broker_ends_listening(self, world):
        closing = await world.connect()
        async with closing.bus().listen("news") as listener, closing.bus().inbox("replies", "me", ttl=10) as inbox:
            await closing.__aexit__(None, None, None)
            for deaf in (listener, inbox):
                with pytest.raises(BrokerUnavailable, match="closed"):
                    await receive(deaf)
        with pytest.raises(NotOpenError):
            await closing.bus().publish([news()])
        with pytest.raises(NotOpenError):
            async with closing.bus().listen("news"):
                pass
        async with closing, closing.bus().listen("news") as listener:
            assert await closing.bus().publish([message := news("a")]) == [1]
            assert await receive(listener) == [message]
