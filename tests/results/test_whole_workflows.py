"""Workflows by an id alone, as another process knows them, and how far they are."""

from __future__ import annotations

import asyncio

import pytest
from canvas.conftest import define

from aioretryq import (
    AsyncResult,
    ConfigError,
    EncodeError,
    GroupResult,
    ResultSet,
    TaskQueue,
    Worker,
    chain,
    chord,
    group,
)
from aioretryq.protocol.result import ResultDocument
from aioretryq.results.progress import Calls
from queues import memory_url, soon


@pytest.fixture
async def queue(url):
    async with TaskQueue(url) as queue:
        define(queue, [])
        yield queue


@pytest.fixture
async def worker(queue):
    async with Worker(queue, concurrency=20).running() as worker:
        yield worker


async def listed(progress):
    return [each async for each in progress]


async def store(queue, task_id, status="SUCCESS", **fields):
    document = ResultDocument(task_id=task_id, status=status, **fields)
    await queue.results.store([queue.results.record(document)])


def steps(queue, *names):
    return [queue.signature(f"w.{name}", (1,)) for name in names]


class TestByItsId:
    async def test_with_all_that_is_before_it(self, queue):
        sent = await chain(
            *steps(queue, "add", "add"), group(steps(queue, "add", "echo")), *steps(queue, "note")
        ).delay()
        found = await queue.workflow(sent.id)
        assert found == sent
        assert found.as_tuple() == sent.as_tuple()
        assert isinstance(found.parent, GroupResult)

    async def test_a_group_that_nobody_has_saved(self, queue, worker):
        sent = await group(queue.signature("w.add", (number, 1)) for number in range(1500)).delay()
        found = await queue.workflow(sent.id)
        assert isinstance(found, GroupResult)
        assert found.as_list() == sent.as_list()
        assert await soon(found.get()) == list(range(1, 1501))

    async def test_a_group_that_was_saved(self, queue):
        group = GroupResult("nightly", [queue.AsyncResult("a"), queue.AsyncResult("b")], queue)
        await group.save()
        assert await queue.workflow("nightly") == group == await queue.GroupResult.restore("nightly")
        assert await queue.GroupResult.restore("nosuch") is None

    async def test_a_step_that_has_begun(self, queue):
        """Each says who has sent it; of those that have not sent it no more is known."""
        await store(queue, "a", children=[[["b", None], None]])
        await store(queue, "b", parent_id="a", children=[[["g", None], [[["c", None], None], [["d", None], None]]]])
        await store(queue, "c", parent_id="b", children=[[["c", None], None]])
        await store(queue, "other", parent_id="c")
        found = await queue.workflow("c")
        assert found.as_list() == ["c", "b", "a"]
        assert (await queue.workflow("other")).as_list() == ["other"]

    async def test_what_nobody_knows(self, queue):
        assert await queue.workflow("nosuch") == queue.AsyncResult("nosuch")

    async def test_drawn_by_its_id(self, queue):
        sent = await chain(*steps(queue, "add", "note")).delay()
        assert await queue.AsyncResult(sent.id).draw() == await sent.draw()
        assert "w.note" in await sent.draw()

    async def test_steps_to_come_have_names(self, queue):
        """Also those after the body of a chord, and in large headers."""
        header = [queue.signature("w.add", (number,)) for number in range(150)]
        sent = await (chord(header, queue.signature("w.total")) | group(steps(queue, "echo", "note"))).delay()
        drawn = await queue.AsyncResult(sent.id).draw()
        for shown in ("w.add x 150", "w.total", "w.echo", "w.note", "group#58; 0 of 150 done"):
            assert shown in drawn
        assert "task" not in drawn


class TestProgress:
    async def test_of_a_whole_workflow(self, queue, worker):
        sent = await (
            chord(steps(queue, "add", "add"), queue.signature("w.total")) | queue.signature("w.note")
        ).delay()
        found = await soon(listed(sent.progress()))
        assert found[-1] == (4, 4)
        assert [done for done, _ in found] == sorted({done for done, _ in found})
        assert await soon(listed(sent.progress())) == [(0, 4), (4, 4)]

    async def test_by_its_id(self, queue, worker):
        sent = await chain(*steps(queue, "add", "note")).delay()
        assert (await soon(listed(queue.AsyncResult(sent.id).progress())))[-1] == (2, 2)

    async def test_it_is_pushed(self, queue):
        sent = await chain(*steps(queue, "add", "note")).delay()
        coming = sent.progress()
        assert await anext(coming) == (0, 2)
        following = asyncio.ensure_future(anext(coming))
        await store(queue, sent.parent.id)
        assert await soon(following) == (1, 2)
        await coming.aclose()

    async def test_of_a_large_header(self, queue, worker):
        header = (queue.signature("w.add", (number,)) for number in range(1500))
        sent = await chord(header, queue.signature("w.total")).delay()
        assert (await soon(listed(queue.AsyncResult(sent.id).progress())))[-1] == (1501, 1501)

    async def test_what_follows_a_failure_is_not_waited_for(self, queue):
        """Celery's workers say nothing of it."""
        first, other, after = (queue.AsyncResult(each) for each in ("first", "other", "after"))
        member = AsyncResult("member", queue, parent=first)
        last = AsyncResult("last", queue, parent=GroupResult("g", [member, other], queue, parent=after))
        await store(queue, "after")
        coming = last.progress()
        assert await anext(coming) == (0, 5)
        assert await soon(anext(coming)) == (1, 5)
        following = asyncio.ensure_future(anext(coming))
        await store(queue, "first", "FAILURE", result={"exc_type": "E", "exc_message": [], "exc_module": "m"})
        assert await soon(following) == (4, 5)
        following = asyncio.ensure_future(anext(coming))
        await store(queue, "other")
        assert await soon(following) == (5, 5)
        with pytest.raises(StopAsyncIteration):
            await anext(coming)

    async def test_what_nobody_waits_for_is_done(self, queue):
        silent = queue.AsyncResult("silent")
        silent.ignored = True
        assert await listed(silent.progress()) == [(1, 1)]
        assert await listed((await queue.signature("w.add", (1,)).apply()).progress()) == [(1, 1)]

    def test_thousands_that_fail_are_cheap(self):
        queue = TaskQueue(memory_url())
        header = GroupResult("h", [queue.AsyncResult(f"h{number}") for number in range(20_000)], queue)
        after = GroupResult("a", [queue.AsyncResult(f"a{number}") for number in range(20_000)], queue, parent=header)
        calls = Calls(AsyncResult("last", queue, parent=after))
        failed = ResultDocument(task_id="x", status="FAILURE")
        calls.take([(place, failed) for place in range(20_000)])
        assert (calls.done, calls.total) == (40_001, 40_001)


async def test_without_results_they_say_what_to_set():
    async with TaskQueue(memory_url(), backend="disabled") as queue:
        result = queue.AsyncResult("a")
        group = GroupResult("g", [result], queue)
        for asked in (result.cancel, group.cancel, group.save, lambda: queue.workflow("a")):
            with pytest.raises(ConfigError, match="result_backend"):
                await asked()
        for counted in (result, group, ResultSet([result], queue)):
            with pytest.raises(ConfigError, match="result_backend"):
                await anext(counted.progress())


def test_groups_are_made_of_results():
    queue = TaskQueue(memory_url())
    with pytest.raises(TypeError, match=r"GroupResult.restore\('x', queue\).*queue.workflow\('x'\)"):
        GroupResult("x")
    with pytest.raises(TypeError, match="workflow"):
        queue.GroupResult("x")
    assert list(queue.GroupResult("x", [])) == []
    with pytest.raises(TypeError, match=r"'id1' is none.*queue.AsyncResult\(id\)"):
        GroupResult("x", ["id1"], queue)
    forgotten = store(queue, "x")
    with pytest.raises(TypeError, match="Await what sends a task"):
        ResultSet([forgotten], queue)
    with pytest.raises(TypeError, match="is none"):
        ResultSet([], queue).update([forgotten])
    forgotten.close()


def test_a_signature_has_no_value_yet():
    queue = TaskQueue(memory_url())
    call = queue.signature("app.add", (1, 2))
    for workflow in (call, group(call), chord([call], call)):
        with pytest.raises(TypeError, match=r"not sent yet: `await \(await signature.delay\(\)\).get\(\)`"):
            workflow.get()
        with pytest.raises(TypeError, match="not sent yet"):
            workflow.get(timeout=5)
    assert (call.get("task"), call.get("nosuch", 3), call.get("nosuch")) == ("app.add", 3, None)


def test_stamps_have_names():
    call = TaskQueue(memory_url()).signature("app.add")
    with pytest.raises(TypeError, match="by name"):
        call.stamp({"tenant": "a"})
    with pytest.raises(TypeError, match="by name"):
        call.stamp_links({"tenant": "a"})


def test_long_chains_are_cut():
    call = TaskQueue(memory_url()).signature("w.add", (1,))
    assert repr(chain([call] * 12)) == " | ".join(["w.add(1)"] * 9 + ["... 2 more", "w.add(1)"])
    assert repr(chain([call] * 10)).count("|") == 9


async def test_results_are_no_values():
    async with TaskQueue(memory_url()) as queue, Worker(queue).running():

        @queue.task(name="w.part")
        async def part():
            return queue.AsyncResult("added")

        @queue.task(name="w.forgets")
        async def forgets():
            return forgotten

        forgotten = store(queue, "x")
        with pytest.raises(EncodeError, match="`await` it, or its `id`"):
            await soon((await part.delay()).get())
        with pytest.raises(EncodeError, match="an `await` is missing"):
            await soon((await forgets.delay()).get())
        forgotten.close()
