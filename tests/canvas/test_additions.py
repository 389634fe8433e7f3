"""Headers that grow while they are worked on: `Task.add_to_chord`."""

from __future__ import annotations

import asyncio

import pytest
from canvas.composing import s, written
from canvas.test_crashes import LEASE, survive
from celery import chord, group

from aioretryq import ChordError, Worker
from aioretryq.workflows.sending import send_signature
from queues import soon

ADDED = {
    "nothing": ([], []),
    "a call": ([lambda: s("add", 5)], [5]),
    "several": ([lambda: s("add", 5), lambda: s("add", 6), lambda: s("flaky", 7, 1)], [5, 6, 7]),
    "a chain": ([lambda: s("add", 4) | s("add", 1)], [5]),
    "a group": ([lambda: group(s("add", 5), s("add", 6))], [[5, 6]]),
    "a chord": ([lambda: chord([s("add", 2), s("add", 3)], s("total") | s("add", 1))], [6]),
    "what is replaced": ([lambda: s("instead")], [5]),
    "what adds more": ([lambda: s("adder", "a call", 9)], [9, 5]),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("AIORETRYQ_LEASE", str(LEASE))


@pytest.fixture(autouse=True)
def adding(environment, queue):
    @queue.task(name="w.adder", bind=True)
    async def adder(self, what, value=1):
        for compose in ADDED[what][0]:
            await self.add_to_chord(written(compose()))
        return value

    @queue.task(name="w.instead", bind=True)
    async def instead(self):
        return self.replace(written(s("add", 4) | s("add", 1)))


async def test_the_body_gets_them_too(queue, worker):
    handles = {
        name: await send_signature(queue, written(chord([s("add", 0), s("adder", name), s("add", 2)], s("echo"))))
        for name in ADDED
    }
    values = {name: await soon(queue.AsyncResult(handle.id).get()) for name, handle in handles.items()}
    for name, found in values.items():
        assert (found[0], found[-1]) == (0, 2), "they are beside the one that added them"
        assert sorted(map(str, found[1:-1])) == sorted(map(str, [1, *ADDED[name][1]]))


async def test_they_can_be_sent_later(queue, worker):
    later = []

    @queue.task(name="w.lazily", bind=True)
    async def lazily(self):
        later.append(await self.add_to_chord(written(s("add", 5)), lazy=True))
        return 1

    handle = await send_signature(queue, written(chord([s("lazily")], s("total"))))
    result = queue.AsyncResult(handle.id)
    assert await soon(queue.AsyncResult(handle.parent.members[0].id).get()) == 1
    assert await result.status() == "PENDING"
    sent = await later[0].delay()
    assert await soon(sent.get()) == 5
    assert await soon(result.get()) == 6


async def test_their_failure_is_that_of_the_chord(queue, worker):
    @queue.task(name="w.adds_bad", bind=True)
    async def adds_bad(self):
        await self.add_to_chord(written(s("fail")))

    handle = await send_signature(queue, written(chord([s("adds_bad"), s("add", 1)], s("total"))))
    with pytest.raises(ChordError, match="raised ValueError"):
        await soon(queue.AsyncResult(handle.id).get())


async def test_what_is_no_part_has_nothing_to_add_to(queue, worker):
    result = await queue.send_task("w.adder", ["a call"])
    with pytest.raises(ValueError, match="no part of a chord"):
        await soon(result.get())


async def test_every_attempt_adds_its_own(queue, worker):
    @queue.task(name="w.again", bind=True, max_retries=1, default_retry_delay=0.01)
    async def again(self):
        await self.add_to_chord(written(s("add", self.request.retries)))
        if self.request.retries == 0:
            raise self.retry()
        return "done"

    handle = await send_signature(queue, written(chord([s("again")], s("echo"))))
    found = await soon(queue.AsyncResult(handle.id).get())
    assert sorted(map(str, found)) == ["0", "1", "done"]


@pytest.mark.parametrize("operation", ["add_parts", "send"])
async def test_whoever_adds_again_after_a_crash_adds_the_same(queue, operation):
    handle = await send_signature(queue, written(chord([s("adder", "several")], s("echo"))))
    async with await survive(queue, operation):
        found = await soon(queue.AsyncResult(handle.id).get())
    assert sorted(found) == [1, 5, 6, 7]


async def test_nobody_waits_for_an_adder_that_was_cancelled(queue):
    """What it has added still counts; of itself the chord is told."""

    @queue.task(name="w.adds_slowly", bind=True, time_limit=0.05)
    async def adds_slowly(self):
        await self.add_to_chord(written(s("add", 5)))
        await asyncio.sleep(60)

    async with Worker(queue).running():
        handle = await send_signature(queue, written(chord([s("adds_slowly")], s("echo"))))
        with pytest.raises(ChordError, match="TimeLimitExceeded"):
            await soon(queue.AsyncResult(handle.id).get())
