"""Workers that die at every step of what follows: it goes on, and nothing is sent twice."""

from __future__ import annotations

import asyncio
import itertools
import re

import pytest
import redis
from canvas.composing import s, written
from canvas.conftest import define
from celery import Celery, chord, group
from celery.app.task import Context

from aioretryq import ChordError, TaskQueue, Worker
from aioretryq.workflows import rescue
from aioretryq.workflows.sending import send_signature
from queues import soon, until

LEASE = 0.2
QUEUES = ["celery", "later", rescue.QUEUE]


class Death:
    """A worker that dies the moment an operation of its backend or broker is done, before it hears of that."""

    def __init__(self, queue, operation, number=1):
        self._owner = queue.results.backend if hasattr(queue.results.backend, operation) else queue.broker
        self._operation = operation
        self._numbers = itertools.count(1)
        self._number = number
        self.come = asyncio.Event()
        self.victim = None

    def _matters(self, batch, answer):
        """Of the batches of an operation, those that are about what follows; of parts, the last one."""
        match self._operation:
            case "finish":
                return any(finish.send and done for finish, done in zip(batch, answer, strict=True))
            case "count_parts":
                return any(answer)
        return bool(batch)

    async def __aenter__(self):
        real = getattr(self._owner, self._operation)

        async def dying(*args):
            answer = await real(*args)
            if self._matters(args[0], answer) and next(self._numbers) == self._number:
                self.come.set()
                self.victim.cancel()  # nothing is settled any more, its messages come back by their leases
                await asyncio.Event().wait()
            return answer

        setattr(self._owner, self._operation, dying)
        return self

    async def __aexit__(self, *exc_info):
        delattr(self._owner, self._operation)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The victim runs nothing of what it has sent, for that it may do twice: it is in another queue."""
    monkeypatch.setenv("AIORETRYQ_LEASE", str(LEASE))


@pytest.fixture(autouse=True)
def routes(queue):
    queue.conf.task_routes = {"w.note": "later", "w.told_id": "later"}


async def survive(queue, operation, number=1, queues=("celery",)):
    """One worker dies; the next one goes on."""
    async with Death(queue, operation, number) as death:
        death.victim = asyncio.create_task(Worker(queue, queues=list(queues)).run())
        await soon(death.come.wait())
        await asyncio.wait([death.victim])
    return Worker(queue, queues=[*queues, "later"]).running()


async def quiet(queue):
    """Until nothing is left to do."""
    async with asyncio.timeout(20):
        while sum((await queue.broker.depth(QUEUES)).values()) or await queue.broker.recover():
            await asyncio.sleep(0.01)
    for name in ("celery", "later"):
        last = await queue.send_task("w.add", [1], queue=name)
        assert await soon(last.get()) == 1


def part_ways(queue):
    """As where results and messages are in two places: a worker can die between the steps."""
    queue.broker.joins = lambda backend: False


@pytest.mark.parametrize(("operation", "joined"), [("store", False), ("finish", False), ("finish", True)])
async def test_callbacks_and_chains(queue, calls, operation, joined):
    if not joined:
        part_ways(queue)
    first = s("add", 1, 1)
    first.link(s("note", "callback"))
    handle = await send_signature(queue, written(first | s("note", "step") | s("add", 5)))
    async with await survive(queue, operation):
        assert await soon(queue.AsyncResult(handle.id).get()) == 7
        await until(lambda: len(calls) >= 2)
        await quiet(queue)
    assert sorted(calls) == [("note", 2, "callback"), ("note", 2, "step")]


@pytest.mark.parametrize(
    ("operation", "number", "joined"),
    [
        ("open_chords", 1, True),
        ("store", 2, True),
        ("count_parts", 1, True),
        ("finish", 2, True),
        ("open_chords", 1, False),
        ("store", 2, False),
        ("count_parts", 1, False),
        ("hold_chords", 1, False),
        ("finish", 2, False),
        ("close_chords", 1, False),
    ],
)
async def test_chords(queue, calls, operation, number, joined):
    """Opened by the step before; of the parts the one that dies may be the last one, or not."""
    if not joined:
        part_ways(queue)
    steps = s("add", 1, 1) | group(s("add", 1), s("flaky", 0)) | s("note", "body")
    handle = await send_signature(queue, written(steps))
    async with await survive(queue, operation, number):
        assert await soon(queue.AsyncResult(handle.id).get()) == [3, 2]
        await quiet(queue)
    assert calls == [("note", [3, 2], "body")]


@pytest.mark.parametrize("operation", ["finish", "close_chords"])
async def test_after_the_body_was_sent(queue, calls, operation):
    """A part comes back that was counted: the body is not sent again. Where broker and backend are in two places the
    chord may not be closed yet."""
    if operation == "close_chords":
        part_ways(queue)
    handle = await send_signature(queue, written(chord([s("add", 1), s("add", 2)], s("note"))))
    async with await survive(queue, operation):
        assert await soon(queue.AsyncResult(handle.id).get()) == [1, 2]
        gid = handle.parent.id
        again = [handle.parent.members[0].id, "w.add", [1]]
        chord_again = written(s("note", task_id=handle.id, group_id=gid))
        result = await queue.send_task(
            again[1], again[2], task_id=again[0], group_id=gid, group_index=0, chord=chord_again
        )
        assert await soon(result.get()) == 1
        await quiet(queue)
    assert calls == [("note", [1, 2])]


@pytest.mark.parametrize("operation", ["count_parts", "hold_chords", "finish"])
async def test_chords_that_fail(queue, calls, operation):
    body = s("note", task_id="B", link_error=[written(s("told_id"))])
    await send_signature(queue, written(chord([s("fail", task_id="F")], body)))
    async with await survive(queue, operation):
        with pytest.raises(ChordError, match=re.escape("Dependency F raised ValueError('broken')")):
            await soon(queue.AsyncResult("B").get())
        await until(lambda: bool(calls))
        await quiet(queue)
    assert calls == [("told_id", "B")]


async def test_errbacks_that_are_called_may_be_called_again(queue, calls):
    """What was called cannot be taken back: at least once. What is sent is sent once."""
    failing = s("fail", task_id="F")
    failing.link_error(s("told"))
    failing.link_error(s("told_id"))
    await send_signature(queue, written(failing))
    async with await survive(queue, "finish"):
        await until(lambda: ("told_id", "F") in calls)
        await quiet(queue)
    assert calls.count(("told_id", "F")) == 1
    assert calls.count(("told", "F", "ValueError", "broken")) == 1, "finish was carried out: it is not called again"
    calls.clear()
    failing.set(task_id="G")
    await send_signature(queue, written(failing))
    async with await survive(queue, "store"):
        await until(lambda: ("told_id", "G") in calls)
    assert [call[0] for call in calls] == ["told", "told_id"]


@pytest.mark.parametrize("operation", ["count_parts", "hold_chords"])
async def test_a_celery_worker_is_next(redis_url, operation):
    """It drops a part whose chord is somebody else's: the right has ended when the message is back."""
    async with TaskQueue(redis_url) as queue:
        define(queue, [])
        if operation == "hold_chords":
            part_ways(queue)
        handle = await send_signature(queue, written(chord([s("add", 1)], s("note", task_id="B"))))
        await survive(queue, operation)
        async with asyncio.timeout(20):
            while not await queue.broker.recover():
                await asyncio.sleep(0.001)
        gid, (part,) = handle.parent.id, handle.parent.members
        with redis.Redis.from_url(redis_url) as server:
            assert not server.exists(f"celery-taskset-meta-{gid}.c")
            server.delete("celery")
            with Celery(broker=redis_url, backend=redis_url, set_as_current=False) as app:
                body = app.signature("w.note", task_id="B", options={"task_id": "B"})
                request = Context(id=part.id, group=gid, group_index=0, chord=dict(body))
                await asyncio.to_thread(app.backend.on_chord_part_return, request, "SUCCESS", 1)
            assert server.llen("celery") == 1
