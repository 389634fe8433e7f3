"""Workers that die while another call takes a task's place: the next one sends the same, and all of it once."""

from __future__ import annotations

import pytest
from canvas.composing import s, written
from canvas.test_crashes import LEASE, quiet, survive
from celery import chain, chord, group

from aioretryq.errors import Replaced
from aioretryq.protocol.signature import read_signature
from aioretryq.workflows.sending import send_signature
from queues import soon


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("AIORETRYQ_LEASE", str(LEASE))


@pytest.fixture(autouse=True)
def instead(queue):
    @queue.task(name="w.instead")
    async def instead(x):
        raise Replaced(read_signature(written(group(s("note", x), s("note", x + 1)))))

    @queue.task(name="w.again")
    async def again(x):
        raise Replaced(read_signature(written(chain(s("add", x, 1), s("instead")))))


@pytest.fixture
def opened(queue, monkeypatch):
    """The chords that were opened, in their order."""
    found = []
    cls = type(queue.results.backend)
    really = cls.open_chords

    async def open_chords(self, openings):
        found.extend(each.group_id for each in openings)
        return await really(self, openings)

    monkeypatch.setattr(cls, "open_chords", open_chords)
    return found


async def victim(queue, operation):
    """One that takes the first message alone, or all up to the last part of a chord."""
    alone = operation in ("open_chords", "finish")
    queue.conf.task_routes = dict.fromkeys(("w.note", "w.again"), "later") if alone else {}
    return await survive(queue, operation)


POINTS = ["open_chords", "finish", "count_parts"]


@pytest.mark.parametrize("operation", POINTS)
async def test_in_the_middle_of_a_chain(queue, calls, opened, operation):
    handle = await send_signature(queue, written(s("instead", 5) | s("total") | s("note", "end")))
    async with await victim(queue, operation):
        assert await soon(queue.AsyncResult(handle.id).get()) == 11
        await quiet(queue)
    assert calls.count(("note", 11, "end")) == 1
    assert set(calls) == {("note", 11, "end"), ("note", 5), ("note", 6)}
    assert len(set(opened)) == 1, "a chord of the same name"


@pytest.mark.parametrize("operation", POINTS)
async def test_in_a_header_and_twice(queue, calls, opened, operation):
    handle = await send_signature(queue, written(chord([s("again", 1), s("add", 1)], s("note", "body"))))
    async with await victim(queue, operation):
        assert await soon(queue.AsyncResult(handle.id).get()) == [[2, 3], 1]
        await quiet(queue)
    assert calls.count(("note", [[2, 3], 1], "body")) == 1
    assert len(set(opened)) == 2, "that of the task, and that in its place"
