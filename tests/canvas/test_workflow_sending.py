"""How workflows are sent: once, all that can be known looked at before, others let run meanwhile, and nothing left
behind that waits for ever when it ends in the middle."""

from __future__ import annotations

import asyncio
import time

import pytest

from aioretryq import PartlySent, TaskQueue, canvas
from aioretryq.errors import (
    BrokerUnavailable,
    ChordError,
    ConfigError,
    EncodeError,
    PayloadTooLarge,
    PublishError,
    UnknownSettingError,
)
from aioretryq.message import ChordClaim, ChordOpening, ChordPart
from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import CHAIN, TASK, Node, chord_of, group_of
from aioretryq.workflows import dispatch
from aioretryq.workflows.record import record_key
from aioretryq.workflows.sending import start
from queues import memory_url, soon

MANY = 2500
TOTAL = Node(TASK, "w.total")
EMPTY = Node(CHAIN, "celery.chain", subtask_type=CHAIN)
ONCE = {"retry": False, "timeout": 0.05, "wait": 0.0}


class NotThere(BrokerUnavailable):
    maybe_done = False


def add(number, **options):
    return Node(TASK, "w.add", args=(number, 1), options=options)


def two_steps(number):
    return Node(CHAIN, "celery.chain", subtask_type=CHAIN, steps=(add(number), Node(TASK, "w.add", args=(1,))))


async def waiting(queue):
    """How many messages the broker has."""
    count = 0
    while deliveries := (await queue.broker.claim(["celery"], limit=1000)).deliveries:
        count += len(deliveries)
    return count


@pytest.fixture
async def memory():
    async with TaskQueue(memory_url()) as queue:
        yield queue


EMPTIES = {
    "few": lambda: group_of([EMPTY] * 3),
    "a list": lambda: group_of([EMPTY] * 150),
    "a long list": lambda: group_of([EMPTY] * MANY),
    "a generator": lambda: group_of(Members(EMPTY for _ in range(MANY))),
}


@pytest.mark.parametrize("kind", EMPTIES)
async def test_a_header_of_nothing_is_complete(queue, worker, kind):
    result = await start(queue, chord_of(EMPTIES[kind](), TOTAL))
    assert await soon(result.get()) == 0
    many = group_of(Node(TASK, "w.add", args=(number,), immutable=True) for number in (1, 2))
    later = await start(queue, chord_of(EMPTIES[kind](), chord_of(many, TOTAL)))
    assert await soon(later.get()) == 3


class TestAPlanIsSentOnce:
    async def test_the_second_time_is_an_error(self, memory):
        for count in (2, 150, MANY):
            header = [memory.signature("w.add", (number, 1)) for number in range(count)]
            plan = memory.compile(canvas.chord(header, memory.signature("w.total")))
            await memory.send(plan)
            with pytest.raises(ConfigError, match="Compile the workflow again"):
                await memory.send(plan)

    async def test_also_after_a_failure(self, memory):
        send = memory.broker.send

        async def fails(messages):
            raise NotThere("gone")

        memory.broker.send = fails
        plan = memory.compile(canvas.group([memory.signature("w.add")]), retry=False)
        with pytest.raises(PublishError):
            await memory.send(plan)
        memory.broker.send = send
        with pytest.raises(ConfigError, match="sending it has failed"):
            await memory.send(plan)

    async def test_batches_that_are_made_when_they_are_read_are_read_once(self, memory):
        plan = memory.compile(canvas.group([memory.signature("w.add") for _ in range(150)]))
        assert sum(len(batch.messages) for batch in plan.batches()) == 150
        with pytest.raises(ConfigError, match="read before"):
            plan.batches()


BROKEN = {
    "an argument": (add(object()), EncodeError, "object"),
    "an argument of a later step": (
        Node(CHAIN, "celery.chain", subtask_type=CHAIN, steps=(add(1), add(object()))),
        EncodeError,
        "object",
    ),
    "a task_id": (add(1, task_id="same"), ConfigError, "same"),
    "an option": (add(1, priority=44), ConfigError, "priority"),
    "a size": (add("x" * 100_000), PayloadTooLarge, "max_payload_bytes"),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_of_a_long_list_all_is_looked_at_before_anything_is_sent(kind):
    member, error, says = BROKEN[kind]
    members = [add(0, task_id="same"), *map(add, range(MANY)), member]
    async with TaskQueue(memory_url(), max_payload_bytes=50_000) as queue:
        with pytest.raises(error, match=says):
            await start(queue, chord_of(group_of(members), TOTAL))
        assert await waiting(queue) == 0
        assert await queue.results.backend.overdue_chords(60.0, 10) == []


async def test_arguments_of_a_long_list(memory):
    @memory.task(name="w.takes")
    async def takes(one):
        """Not two."""

    with pytest.raises(TypeError, match="one"):
        await canvas.group([takes.s(1)] * MANY + [takes.s(1, 2)])
    assert await waiting(memory) == 0


async def test_options_that_serializers_other_than_json_can_take(memory):
    members = [*map(add, range(MANY)), Node(TASK, "w.add", args=({1, 2},), options={"serializer": "pickle"})]
    await start(memory, group_of(members))
    with pytest.raises(UnknownSettingError):
        await start(memory, group_of(members), options={"prioritee": 1})


class TestOthersRunMeanwhile:
    @pytest.fixture
    async def turns(self, monkeypatch):
        monkeypatch.setattr(dispatch, "SLICE", 0.0)
        found = []

        async def count():
            while True:
                found.append(time.monotonic())
                await asyncio.sleep(0)

        task = asyncio.create_task(count())
        yield found
        task.cancel()

    async def turns_before_it_is_sent(self, queue, turns, node):
        counts, send = [], queue.broker.send

        async def sending(messages):
            counts.append(len(turns))
            await send(messages)

        queue.broker.send = sending
        await asyncio.sleep(0)
        before = len(turns)
        await start(queue, node)
        return counts[0] - before

    async def test_while_a_long_list_is_planned_and_checked(self, memory, turns):
        header = group_of(map(two_steps, range(MANY)))
        assert await self.turns_before_it_is_sent(memory, turns, chord_of(header, TOTAL)) > MANY

    async def test_while_a_long_step_is_planned(self, memory, turns):
        steps = (add(1), group_of(map(add, range(MANY))))
        node = Node(CHAIN, "celery.chain", subtask_type=CHAIN, steps=steps)
        assert await self.turns_before_it_is_sent(memory, turns, node) > 10

    async def test_a_step_that_no_message_can_hold(self):
        steps = (add(1), group_of(map(add, range(MANY))))
        async with TaskQueue(memory_url(), max_payload_bytes=50_000) as queue:
            with pytest.raises(PayloadTooLarge, match="after its first step"):
                await start(queue, Node(CHAIN, "celery.chain", subtask_type=CHAIN, steps=steps))
            assert await waiting(queue) == 0


class TestASenderThatIsCancelled:
    async def test_in_the_middle_fails_the_chord(self, queue):
        began, send = asyncio.Event(), queue.broker.send

        async def hangs(messages):
            if began.is_set():
                await asyncio.Event().wait()
            began.set()
            await send(messages)

        queue.broker.send = hangs
        sending = asyncio.create_task(start(queue, chord_of(group_of(map(add, range(MANY))), TOTAL)))
        await soon(began.wait())
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        queue.broker.send = send
        assert [each.why for each in await queue.results.backend.overdue_chords(60.0, 10)] == ["unsent"]

    async def test_before_anything_was_sent_closes_the_chord(self, queue):
        backend, opened = queue.results.backend, []
        opening, is_open = backend.open_chords, asyncio.Event()

        async def hangs(chords):
            await opening(chords)
            opened.extend(chords)
            is_open.set()
            await asyncio.Event().wait()

        backend.open_chords = hangs
        sending = asyncio.create_task(start(queue, chord_of(group_of([add(1), add(2)]), TOTAL)))
        await soon(is_open.wait())
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await backend.amend_chords(opened) == [False]
        assert await waiting(queue) == 0


class TestASenderThatTakesLong:
    async def test_speaks_while_the_next_members_are_made(self, memory, monkeypatch):
        said, backend, send = [], memory.results.backend, memory.broker.send
        amend = backend.amend_chords
        monkeypatch.setattr(dispatch, "SENDING", 0.1)

        async def amending(chords):
            said.append("amend")
            return await amend(chords)

        async def sending(messages):
            said.append("send")
            await send(messages)

        def slow():
            for number in range(3200):
                if 2000 < number < 3000:
                    time.sleep(0.0005)
                yield add(number)

        backend.amend_chords, memory.broker.send = amending, sending
        await start(memory, chord_of(group_of(Members(slow())), TOTAL), options=ONCE)
        assert said[: said.index("send", said.index("amend"))].count("amend") >= 3

    async def test_is_told_that_its_chord_has_failed(self, queue):
        backend, send = queue.results.backend, queue.broker.send
        opening, chords = backend.open_chords, []

        async def opened(found):
            chords.extend(found)
            await opening(found)

        async def sending(messages):
            await send(messages)
            for each in chords:  # as workers do when they have not heard of it for long enough
                await backend.amend_chords([ChordOpening(each.group_id, None, each.ttl, each.body, 0.0)])
                part = ChordPart(each.group_id, "rescue", None, b"", "rescue", 60.0, why="unsent")
                if await backend.count_parts([part]) == [True]:
                    await backend.close_chords([ChordClaim(each.group_id, "rescue", failed=True)])

        backend.open_chords, queue.broker.send = opened, sending
        members = Members(map(add, range(MANY)))
        with pytest.raises(PartlySent, match="has failed already") as caught:
            await start(queue, chord_of(group_of(members), TOTAL))
        assert isinstance(caught.value.__cause__, ChordError)
        assert len(caught.value.results) == await waiting(queue)


async def test_nothing_is_written_down_of_a_workflow_that_was_not_sent(memory):
    async def fails(messages):
        raise NotThere("gone")

    memory.broker.send = fails
    add_ = memory.signature("w.add", (1,))
    plan = memory.compile(add_ | add_, retry=False)
    with pytest.raises(PublishError, match="gone"):
        await memory.send(plan)
    assert await memory.results.restore_group(record_key(plan.result.id)) is None
