"""Many calls at once: `delay_many`, and what becomes of them when something goes wrong in the middle."""

from __future__ import annotations

import asyncio
import json
import tracemalloc

import pytest

from aioretryq import (
    BrokerUnavailable,
    ConfigError,
    EncodeError,
    PartlySent,
    PublishError,
    TaskQueue,
    UnknownSettingError,
)
from aioretryq.context import Request, Run, current_run
from aioretryq.sending_many import CHUNK
from queues import memory_url, soon


@pytest.fixture
async def queue(url):
    async with TaskQueue(url) as queue:
        yield queue


@pytest.fixture
async def at_hand():
    async with TaskQueue(memory_url()) as queue:
        yield queue


def task_of(queue, **options):
    @queue.task(name="app.add", **options)
    async def add(x, y=1):
        return x + y

    return add


async def taken(queue, name="celery"):
    """Headers and arguments of all messages, in their order."""
    found = []
    while deliveries := (await queue.broker.claim([name], limit=1000)).deliveries:
        found += [(json.loads(each.body)["headers"], queue.decode(each.body)) for each in deliveries]
    return found


class Interfered:
    """A broker that does something else for some of its sends."""

    def __init__(self, broker, interfere):
        self.broker = broker
        self.interfere = interfere
        self.count = 0

    def __getattr__(self, name):
        return getattr(self.broker, name)

    async def send(self, messages):
        self.count += 1
        await self.interfere(self.count, messages)
        await self.broker.send(messages)


def interfere(queue, how):
    queue.connections.broker = Interfered(queue.broker, how)


async def test_all_of_them_in_their_order(queue):
    results = await task_of(queue).delay_many((n,) for n in range(3 * CHUNK + 7))
    messages = await taken(queue)
    assert [message.args for _, message in messages] == [[n] for n in range(3 * CHUNK + 7)]
    assert [result.id for result in results] == [message.id for _, message in messages]
    assert len(results) == 3 * CHUNK + 7
    assert results[-1].id == messages[-1][1].id
    assert [result.id for result in results[1:3]] == [message.id for _, message in messages[1:3]]
    with pytest.raises(IndexError):
        results[len(results)]


async def test_each_way_to_write_a_call(queue):
    calls = [(1,), [2], {"x": 3}, {"x": 4, "y": 5}]
    await task_of(queue).delay_many(calls, {"y": 9}, queue="mail", priority=3)
    found = [(message.args, message.kwargs, message.priority) for _, message in await taken(queue, "mail")]
    assert found == [([1], {"y": 9}, 3), ([2], {"y": 9}, 3), ([], {"y": 9, "x": 3}, 3), ([], {"y": 5, "x": 4}, 3)]


async def test_the_messages_are_those_of_single_calls(at_hand):
    add = task_of(at_hand, shadow_name=None)
    await add.delay(1, y=2)
    await add.delay_many([(1,)], {"y": 2})
    await at_hand.send_many("app.add", [(1,)], {"y": 2})
    add.shadow_name = lambda args, kwargs, options: f"add {args[0]}"
    await add.delay(1, y=2)
    await add.delay_many([(1,)], {"y": 2})
    headers = [headers for headers, _ in await taken(at_hand)]
    for each in headers:
        assert each.pop("id") == each.pop("root_id")
    headers[2]["ignore_result"] = False
    assert headers[0] == headers[1] == headers[2]
    assert headers[3] == headers[4]


async def test_nothing_to_send(at_hand):
    assert len(await task_of(at_hand).delay_many([])) == 0


async def test_inside_of_a_task_they_are_its_children(at_hand):
    add = task_of(at_hand)
    request = Request(id="parent", root_id="root")
    token = current_run.set(Run(add, request, at_hand))
    results = await add.delay_many([(1,), (2,)])
    current_run.reset(token)
    assert request.children == [result.as_tuple() for result in results]
    assert {(h["parent_id"], h["root_id"]) for h, _ in await taken(at_hand)} == {("parent", "root")}


async def test_eager(at_hand):
    at_hand.conf.task_always_eager = True
    results = await task_of(at_hand).delay_many([(1,), (2,)])
    assert [await result.get() for result in results] == [2, 3]


@pytest.mark.parametrize(
    ("calls", "options", "error", "text"),
    [
        ([(1,), ()], {}, TypeError, "cannot be called so"),
        ([(1,), "ab"], {}, TypeError, "a tuple of its arguments"),
        ("ab", {}, TypeError, "are a list"),
        ({"x": 1}, {}, TypeError, "are a list"),
        ([(1,), (object(),)], {}, EncodeError, "object"),
        ([(1,)], {"task_id": "same"}, ConfigError, "cannot share one task_id"),
        ([(1,)], {"priorty": 1}, UnknownSettingError, "priority"),
    ],
)
async def test_what_is_wrong_from_the_start_is_told_before_anything_is_sent(at_hand, calls, options, error, text):
    with pytest.raises(error, match=text) as raised:
        await task_of(at_hand).delay_many(calls, **options)
    assert not isinstance(raised.value, PublishError)
    assert await at_hand.broker.depth(["celery"]) == {"celery": 0}


async def test_the_arguments_of_a_list_are_all_checked_first(at_hand):
    with pytest.raises(TypeError, match="cannot be called so"):
        await task_of(at_hand).delay_many([(1,)] * (10 * CHUNK) + [()])
    assert await at_hand.broker.depth(["celery"]) == {"celery": 0}


async def test_a_wrong_one_late_in_a_generator(queue):
    def calls():
        for number in range(2 * CHUNK + 5):
            yield (number,)
        yield (object(),)

    with pytest.raises(PartlySent, match=f"{2 * CHUNK + 5} have been sent; number {2 * CHUNK + 5} was not") as raised:
        await task_of(queue).delay_many(calls())
    error = raised.value
    assert isinstance(error.__cause__, EncodeError)
    # What was read before it is sent too: an iterator cannot be read again.
    assert (len(error.results), list(error.failed), error.tried) == (2 * CHUNK + 5, [2 * CHUNK + 5], 2 * CHUNK + 5)
    assert not error.maybe_sent
    sent = [message for _, message in await taken(queue)]
    assert [message.args for message in sent] == [[n] for n in range(2 * CHUNK + 5)]
    assert [message.id for message in sent] == [result.id for result in error.results]


async def test_an_error_of_the_generator_itself(at_hand):
    def calls():
        for number in range(CHUNK):
            yield (number,)
        raise LookupError("no more rows")

    with pytest.raises(PartlySent, match="no more rows") as raised:
        await task_of(at_hand).delay_many(calls())
    assert isinstance(raised.value.__cause__, LookupError)
    assert len(raised.value.results) == CHUNK == len(await taken(at_hand))


async def test_a_broker_that_goes_away_in_the_middle(queue):
    async def gone(count, messages):
        if count > 3:
            raise BrokerUnavailable("Cannot reach the broker.")

    interfere(queue, gone)
    with pytest.raises(PartlySent, match="Cannot reach the broker") as raised:
        await task_of(queue).delay_many(((n,) for n in range(100_000)), retry=False)
    error = raised.value
    assert error.maybe_sent
    assert error.tried == len(error.results) + len(error.failed) < 100_000
    assert all(isinstance(each, PublishError) for each in error.failed.values())
    assert [message.id for _, message in await taken(queue)] == [result.id for result in error.results]


async def test_a_broker_that_comes_back_in_time_gets_each_once(queue):
    async def flickers(count, messages):
        if count in (1, 3):
            error = BrokerUnavailable("Cannot reach the broker.")
            error.maybe_done = False
            raise error

    interfere(queue, flickers)
    await soon(task_of(queue).delay_many((n,) for n in range(3 * CHUNK)))
    assert sorted(message.args[0] for _, message in await taken(queue)) == list(range(3 * CHUNK))


async def test_one_that_is_refused_fails_alone(at_hand):
    async def refuse(count, messages):
        if any(b"forbidden" in each.body for each in messages):
            raise EncodeError("this one is refused")

    interfere(at_hand, refuse)
    calls = [("forbidden" if n == 17 else n,) for n in range(50)]
    with pytest.raises(PartlySent, match="49 have been sent; number 17 was not") as raised:
        await task_of(at_hand).delay_many(calls)
    assert list(raised.value.failed) == [17]
    assert len(await taken(at_hand)) == 49


async def test_cancelled_what_is_not_on_its_way_is_dropped(at_hand):
    entered = asyncio.Event()

    async def hang(count, messages):
        entered.set()
        await asyncio.Event().wait()

    interfere(at_hand, hang)
    sending = asyncio.create_task(task_of(at_hand).delay_many((n,) for n in range(100_000)))
    await entered.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert all(entry.answer.done() for entry in at_hand.connections.publisher._sends._pending)


async def test_a_slow_broker_holds_up_the_generator(at_hand):
    read, go = 0, asyncio.Event()

    def calls():
        nonlocal read
        for read in range(100_000):
            yield (read,)

    async def slow(count, messages):
        await go.wait()

    interfere(at_hand, slow)
    sending = asyncio.create_task(task_of(at_hand).delay_many(calls()))
    while at_hand.connections.broker.count == 0:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert read < 4 * CHUNK
    go.set()
    assert len(await soon(sending)) == 100_000


async def test_others_get_their_turn(at_hand):
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await task_of(at_hand).delay_many((n,) for n in range(20 * CHUNK))
    counting.cancel()
    assert turns >= 20


async def test_memory_does_not_grow_with_the_calls(at_hand):
    add = task_of(at_hand)

    async def drop(count, messages):
        await at_hand.connections.broker.broker.purge("celery")

    interfere(at_hand, drop)
    await add.delay_many(("x" * 500,) for n in range(1000))
    tracemalloc.start()
    await add.delay_many(("x" * 500,) for n in range(20_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6, f"{peak:,} bytes; the messages have 25,000,000"


async def test_events_tell_of_each(at_hand):
    at_hand.conf.task_send_sent_event = True
    async with at_hand.events("task-sent") as events:
        results = await task_of(at_hand).delay_many([(1,), (2,)])
        heard = []
        async for event in events:
            heard.append(event.uuid)
            if len(heard) == 2:
                break
    assert heard == [result.id for result in results]
