"""Groups and headers of very many members, or of a generator: made and sent batch by batch, and accounted for."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import redis

from aioretryq import PartlySent, TaskQueue
from aioretryq.errors import BrokerUnavailable, EncodeError, PublishError
from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import CHAIN, TASK, Node, chord_of, group_of
from aioretryq.workflows.promises import Handle, ManyHandles
from aioretryq.workflows.sending import start
from queues import memory_url, soon

MANY = 2500
PLUS_ONE = Node(TASK, "w.add", args=(1,), options={"priority": 3})
ONCE = {"retry": False}
PROGRAM = Path(__file__).parent / "send_very_many.py"


class NotThere(BrokerUnavailable):
    maybe_done = False


def add(number):
    return Node(TASK, "w.add", args=(number, 1))


def numbers(count, broken_at=None):
    for number in range(count):
        yield add(object() if number == broken_at else number)


async def claimed(queue):
    """Messages that wait, by number."""
    found = []
    while deliveries := (await queue.broker.claim(["celery"], limit=1000)).deliveries:
        found += [queue.decode(delivery.body) for delivery in deliveries]
    return found


@pytest.fixture
async def memory():
    async with TaskQueue(memory_url()) as queue:
        yield queue


KINDS = {
    "a list": lambda: [add(number) for number in range(MANY)],
    "a generator": lambda: Members(numbers(MANY)),
    "a short generator": lambda: Members(numbers(20)),
    "more than calls": lambda: Members(
        Node(CHAIN, "celery.chain", subtask_type=CHAIN, steps=(add(number), PLUS_ONE))
        if number % 7 == 0
        else add(number)
        for number in range(MANY)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_headers(queue, worker, kind):
    count = 20 if "short" in kind else MANY
    more = len(range(0, MANY, 7)) if kind == "more than calls" else 0
    result = await start(queue, chord_of(group_of(KINDS[kind]()), Node(TASK, "w.total")))
    assert await soon(result.get()) == sum(range(count)) + count + more


@pytest.mark.parametrize("kind", ["a list", "a generator"])
async def test_groups_and_first_steps(queue, worker, kind):
    result = await start(queue, group_of(KINDS[kind]()), (), {}, {"priority": 9})
    assert await soon(result.get()) == list(range(1, MANY + 1))
    steps = (group_of(KINDS[kind]()), Node(TASK, "w.total"), PLUS_ONE)
    result = await start(queue, Node(CHAIN, "celery.chain", subtask_type=CHAIN, steps=steps))
    assert await soon(result.get()) == sum(range(MANY)) + MANY + 1


async def test_headers_of_groups_and_chords(queue, worker):
    def parts():
        for number in range(1100):
            yield add(number)
        yield chord_of(group_of([add(1), add(2)]), Node(TASK, "w.total"))
        steps = (add(1), group_of([Node(TASK, "w.echo"), Node(TASK, "w.echo", args=(5,))]))
        yield Node(CHAIN, "celery.chain", subtask_type=CHAIN, steps=steps)

    result = await start(queue, chord_of(group_of(Members(parts())), Node(TASK, "w.echo")))
    *plain, of_chord, of_group = await soon(result.get())
    assert plain == list(range(1, 1101))
    assert (of_chord, of_group) == (5, [2, [2, 5]])


async def test_messages_are_those_of_calls_made_one_by_one(memory):
    body = Node(TASK, "w.total", options={"task_id": "BODY"})
    await start(memory, chord_of(group_of(Members(numbers(MANY)), task_id="G"), body), (100,))
    found = await claimed(memory)
    assert [message.args for message in found] == [[100, number, 1] for number in range(MANY)]
    assert [message.group_index for message in found] == list(range(MANY))
    assert {(m.group, m.chord["options"]["task_id"], m.priority) for m in found} == {("G", "BODY", 0)}
    assert [m.id for m in found] == [m.root_id for m in found] == [m.correlation_id for m in found]
    assert found[-1].argsrepr == f"(100, {MANY - 1}, 1)"
    assert len({message.id for message in found}) == MANY
    few = chord_of(group_of([add(0), add(1)], task_id="G"), body)
    await start(memory, few, (100,))
    alike = ["argsrepr", "kwargsrepr", "chord", "group", "group_index", "reply_to", "task", "kwargs", "origin"]
    for one, other in zip(found[:2], await claimed(memory), strict=True):
        assert [getattr(one, name) for name in alike] == [getattr(other, name) for name in alike]


async def test_a_hundred_thousand_in_memory(memory):
    result = await start(memory, chord_of(group_of(Members(numbers(100_000))), Node(TASK, "w.total")))
    assert len(result.parent) == 100_000
    count = 0
    while deliveries := (await memory.broker.claim(["celery"], limit=1000)).deliveries:
        count += len(deliveries)
    assert count == 100_000


async def test_more_members_take_no_more_memory(memory):
    parcels = []

    async def dropped(messages):
        parcels.append(len(messages))

    async def peak(count):
        tracemalloc.start()
        try:
            await start(memory, chord_of(group_of(Members(numbers(count))), Node(TASK, "w.total")))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    memory.broker.send = dropped  # what the broker would keep is not the client's
    await peak(MANY)
    assert await peak(15_000) - await peak(5_000) < 1_000_000
    assert sum(parcels) == MANY + 20_000
    assert max(parcels) <= 5_000


async def test_a_hundred_thousand_from_a_process_of_its_own(redis_url):
    done = subprocess.run(
        [sys.executable, PROGRAM, redis_url, "100000"], capture_output=True, text=True, timeout=50, check=True
    )
    told = json.loads(done.stdout)
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("celery") == 100_000
        (size_key,) = client.keys(f"*{told['group']}.s")
        assert int(client.get(size_key)) == 100_000
    assert told["grown"] < 20_000_000


async def test_what_is_said_of_a_chord_while_it_is_sent(memory):
    said = []
    backend, broker = memory.results.backend, memory.broker
    opened, amended, sent = backend.open_chords, backend.amend_chords, broker.send

    async def opening(chords):
        said.extend(("open", each.size, each.sending is not None, bool(each.body)) for each in chords)
        await opened(chords)

    async def amending(chords):
        said.extend(("amend", each.size, each.sending is not None) for each in chords)
        return await amended(chords)

    async def sending(messages):
        said.append(("send", len(messages)))
        await sent(messages)

    backend.open_chords, backend.amend_chords, broker.send = opening, amending, sending
    await start(memory, chord_of(group_of(Members(numbers(MANY))), Node(TASK, "w.total")))
    assert said[0] == ("open", None, True, True)
    assert said[-3:] == [("amend", MANY, True), ("send", 500), ("amend", MANY, False)]
    assert sum(each[1] for each in said if each[0] == "send") == MANY
    said.clear()
    await start(memory, chord_of(group_of([add(number) for number in range(MANY)]), Node(TASK, "w.total")))
    assert (said[0], said[-1]) == (("open", None, True, True), ("amend", MANY, False))
    said.clear()
    await start(memory, chord_of(group_of([add(number) for number in range(500)]), Node(TASK, "w.total")))
    assert said == [("open", 500, False, True), ("send", 500)]


class TestChordsThatAreNotSentEntirely:
    async def overdue(self, queue):
        return await queue.results.backend.overdue_chords(60.0, 10)

    async def test_an_argument_that_cannot_be_sent(self, queue):
        members = Members(numbers(4000, broken_at=3500))
        with pytest.raises(PartlySent, match=r"[23],000") as caught:
            await start(queue, chord_of(group_of(members), Node(TASK, "w.total", options={"task_id": "BODY"})))
        assert isinstance(caught.value.__cause__, EncodeError)
        sent = {message.id for message in await claimed(queue)}
        assert {result.id for result in caught.value.results} == sent
        assert len(sent) == caught.value.tried
        (overdue,) = await self.overdue(queue)
        assert overdue.why == "unsent"
        assert json.loads(overdue.body)["options"]["task_id"] == "BODY"

    async def test_a_generator_that_fails(self, queue):
        def members():
            yield from numbers(2500)
            raise LookupError("no more")

        with pytest.raises(PartlySent, match="no more"):
            await start(queue, chord_of(group_of(Members(members())), Node(TASK, "w.total")))
        assert [each.why for each in await self.overdue(queue)] == ["unsent"]

    async def test_a_generator_that_fails_before_anything_was_sent(self, queue):
        def members():
            yield add(1)
            raise LookupError("none")

        with pytest.raises(LookupError, match="none"):
            await start(queue, chord_of(group_of(Members(members())), Node(TASK, "w.total")))
        assert await claimed(queue) == []
        assert await self.overdue(queue) == []

    async def test_a_chord_that_was_sent_entirely_is_not_overdue(self, queue):
        await start(queue, chord_of(group_of(Members(numbers(MANY))), Node(TASK, "w.total")))
        assert await self.overdue(queue) == []

    async def test_a_broker_that_goes_away(self, memory):
        send, calls = memory.broker.send, []

        async def fails(messages):
            calls.append(len(messages))
            if len(calls) > 2:
                raise NotThere("gone")
            await send(messages)

        memory.broker.send = fails
        with pytest.raises(PartlySent, match="gone") as caught:
            await start(memory, chord_of(group_of(Members(numbers(9000))), Node(TASK, "w.total")), options=ONCE)
        assert len(caught.value.results) == sum(calls[:2])
        assert [each.why for each in await self.overdue(memory)] == ["unsent"]

    async def test_of_one_batch_nothing_is_left(self, memory):
        async def fails(messages):
            raise NotThere("gone")

        memory.broker.send = fails
        with pytest.raises(PublishError, match="gone") as caught:
            await start(memory, chord_of(group_of([add(1), add(2)]), Node(TASK, "w.total")), options=ONCE)
        assert not caught.value.maybe_sent
        assert await self.overdue(memory) == []


def test_handles_of_very_many():
    many = ManyHandles()
    ids = ["3f2504e0-4f89-41d3-9a0c-0305e82c3301", "mine", "3f2504e0-4f89-41d3-9a0c-0305e82c3302"]
    for task_id in ids:
        many.append(Handle(task_id))
    assert not many.nested
    inner = Handle("G", members=[Handle("a")])
    many.append(inner)
    assert [each.id for each in many] == [*ids, "G"] == [each.id for each in many[:]]
    assert many[-1] is inner
    assert (len(many), many.nested, repr(many)) == (4, True, "<handles of 4 members>")
