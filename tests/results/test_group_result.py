"""Results of groups and trees of results, as their callers hold them."""

from __future__ import annotations

import asyncio
import json
import pickle

import pytest

from aioretryq import AsyncResult, GroupResult, IncompleteStream, ProtocolError, ResultTimeout, TaskQueue
from aioretryq.message import StoredResult
from aioretryq.protocol.exceptions import exception_to_data
from aioretryq.protocol.result import ResultDocument
from queues import memory_url, soon, until


@pytest.fixture
async def queue(url):
    async with TaskQueue(url) as queue:
        yield queue


@pytest.fixture
async def memory():
    async with TaskQueue(memory_url()) as queue:
        yield queue


def put(queue, task_id, result=None, status="SUCCESS", **more):
    if isinstance(result, Exception):
        result, status = exception_to_data(result), "FAILURE"
    document = ResultDocument(task_id=task_id, status=status, result=result, **more)
    return queue.results.store([queue.results.record(document)])


def group(queue, *ids, parent=None):
    return GroupResult("g", [queue.AsyncResult(task_id) for task_id in ids], queue, parent=parent)


async def watched(queue, count):
    await until(lambda: queue.connections.consumer.subscribed == count)


def idle(queue):
    consumer = queue.connections.consumer
    return until(lambda: consumer.watching == consumer.subscribed == 0)


class TestWaiting:
    async def test_values_come_in_the_order_of_the_group(self, queue):
        found = group(queue, "a", "b", "c")
        waiting = asyncio.create_task(found.get(timeout=15))
        await watched(queue, 3)
        for task_id in "cab":
            await put(queue, task_id, task_id * 2)
        assert await soon(waiting) == ["aa", "bb", "cc"]
        assert await found == await found.join(timeout=0) == ["aa", "bb", "cc"]
        await idle(queue)

    async def test_the_first_failure_is_raised_at_once(self, queue):
        found = group(queue, "never", "bad", "worse")
        waiting = asyncio.create_task(found.get(timeout=15))
        await watched(queue, 3)
        await put(queue, "bad", ValueError("x"))
        with pytest.raises(ValueError, match="x"):
            await soon(waiting)
        await idle(queue)

    async def test_failures_as_values(self, memory):
        await put(memory, "a", 1)
        await put(memory, "b", ValueError("x"))
        assert [repr(value) for value in await group(memory, "a", "b").get(propagate=False)] == [
            "1",
            "ValueError('x')",
        ]

    async def test_timeout(self, memory):
        await put(memory, "a", 1)
        for timeout in (0, 0.05):
            with pytest.raises(ResultTimeout):
                await group(memory, "a", "never").get(timeout=timeout)
        assert await group(memory).get(timeout=0) == await group(memory).get() == []
        await idle(memory)

    async def test_groups_in_groups(self, memory):
        inner = GroupResult("i", [memory.AsyncResult("b"), memory.AsyncResult("c")], memory)
        outer = GroupResult("o", [memory.AsyncResult("a"), inner], memory)
        for task_id in "abc":
            await put(memory, task_id, task_id)
        assert await outer.get() == ["a", ["b", "c"]]
        assert (await outer.completed_count(), outer.as_list()) == (2, ["a", "b", "c"])

    async def test_as_completed(self, queue):
        found = group(queue, "a", "b", "c")
        await put(queue, "b", ValueError("x"))
        seen = []
        async with asyncio.timeout(15):
            async for result in found.as_completed():
                seen.append(result.id)
                if len(seen) < 3:
                    await put(queue, {1: "c", 2: "a"}[len(seen)], 1)
        assert seen == ["b", "c", "a"]
        assert result is found[0]
        await soon(found.finished())
        await idle(queue)

    async def test_leaving_as_completed_early_leaks_nothing(self, memory):
        await put(memory, "a", 1)
        members = group(memory, "a", "never").as_completed()
        assert (await soon(anext(members))).id == "a"
        await members.aclose()
        await idle(memory)

    async def test_cancelled_waiters_leak_nothing(self, memory):
        waiting = asyncio.create_task(group(memory, *map(str, range(100))).get())
        await watched(memory, 100)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await idle(memory)


class TestParents:
    """What follows a failed task in a chain never runs: whoever waits for it learns why."""

    def chain(self, queue):
        first = queue.AsyncResult("first")
        return AsyncResult("last", queue, parent=AsyncResult("middle", queue, parent=first))

    async def test_a_parent_that_fails_meanwhile(self, queue):
        waiting = asyncio.create_task(self.chain(queue).get(timeout=15))
        await watched(queue, 3)
        await put(queue, "first", 1)
        await put(queue, "middle", ValueError("broke"))
        with pytest.raises(ValueError, match="broke"):
            await soon(waiting)
        await idle(queue)

    async def test_a_parent_that_has_failed_before(self, memory):
        await put(memory, "first", KeyError("first"))
        await put(memory, "middle", ValueError("follows"))
        await put(memory, "last", 5)
        last = self.chain(memory)
        for timeout in (0, 5):
            with pytest.raises(KeyError, match="first"):
                await last.get(timeout=timeout)
        assert await last.get(follow_parents=False) == await last.get(propagate=False) == 5

    async def test_a_value_ends_the_wait_whatever_parents_do(self, memory):
        waiting = asyncio.create_task(self.chain(memory).get(timeout=15))
        await watched(memory, 3)
        await put(memory, "last", 5)
        assert await soon(waiting) == 5
        with pytest.raises(ResultTimeout):
            await AsyncResult("other", memory, parent=memory.AsyncResult("last")).get(timeout=0.05)
        await idle(memory)

    async def test_a_group_before_a_task_and_after_one(self, memory):
        before = group(memory, "a", "b")
        last = AsyncResult("last", memory, parent=before)
        waiting = asyncio.create_task(last.get(timeout=15))
        after = asyncio.create_task(group(memory, "x", "y", parent=memory.AsyncResult("b")).get(timeout=15))
        await watched(memory, 5)
        await put(memory, "b", ValueError("one of them"))
        for each in (waiting, after):
            with pytest.raises(ValueError, match="one of them"):
                await soon(each)

    async def test_forgetting(self, memory):
        for task_id in ("first", "middle", "last", "other"):
            await put(memory, task_id, 1)
        assert await self.chain(memory).exists()
        await self.chain(memory).forget()
        found = [await memory.AsyncResult(name).exists() for name in ("first", "middle", "last", "other")]
        assert found == [False, False, False, True]


class TestAsking:
    async def test_states(self, memory):
        found = group(memory, "a", "b")
        assert (await found.ready(), await found.waiting(), await found.successful()) == (False, True, False)
        await put(memory, "a", 1)
        assert (await found.ready(), await found.completed_count(), await found.failed()) == (False, 1, False)
        await put(memory, "b", ValueError("x"))
        assert (await found.ready(), await found.waiting(), await found.successful()) == (True, False, False)
        assert (await found.failed(), await found.completed_count()) == (True, 1)
        await found.forget()
        assert (await found.ready(), await found.failed()) == (False, False)

    async def test_it_is_a_list_of_results(self, memory):
        found = group(memory, "a", "b")
        assert (len(found), [each.id for each in found], found[1].id) == (2, ["a", "b"], "b")
        assert found == group(memory, "a", "b") != group(memory, "a")
        assert found != "g"
        assert {found: 1}[group(memory, "a", "b")] == 1
        assert (str(found), repr(found), bool(group(memory))) == ("g", "<GroupResult g of 2>", True)
        assert await found.children() == found.results

    async def test_revoking(self, queue):
        await group(queue, "a", "b").revoke()
        assert [await queue.AsyncResult(task_id).status() for task_id in "ab"] == ["REVOKED", "REVOKED"]

    async def test_exists(self, queue):
        result = queue.AsyncResult("a")
        assert not await result.exists()
        await queue.results.backend.store([StoredResult("a", "STARTED", b"unreadable")])
        assert await result.exists()


class TestTuples:
    async def test_back_and_forth(self, memory):
        parent = group(memory, "p", parent=memory.AsyncResult("pp"))
        for found in (memory.AsyncResult("a"), AsyncResult("a", memory, parent=parent), parent):
            data = json.loads(json.dumps(found.as_tuple()))
            again = memory.result_from_tuple(data)
            assert again == found
            assert again.as_tuple() == found.as_tuple()
            assert (
                memory.result_from_tuple(pickle.loads(pickle.dumps(found.as_tuple()))).as_tuple() == found.as_tuple()
            )
        assert AsyncResult("a", memory, parent=parent).as_list() == ["a", "p"]
        assert memory.AsyncResult("a").as_list() == ["a"]

    @pytest.mark.parametrize(
        "data",
        [None, 5, "text", [], [1], [1, 2, 3], {"a": 1}, [["id", None, None], None], [5, None], [None, None],
         [["\ud800", None], None], [["a", None], 5], [["a", None], [5]], [["a", 5], None], [["a", ["b"]], None]],
        ids=str,
    )  # fmt: skip
    async def test_what_is_none(self, memory, data):
        with pytest.raises(ProtocolError):
            memory.result_from_tuple(data)

    async def test_depth(self, memory):
        data = ["a", None]
        for _ in range(100_000):
            data = [["a", data], None]
        with pytest.raises(ProtocolError, match="too deeply"):
            memory.result_from_tuple(data)
        endless = [["a", None], []]
        endless[1].append(endless)
        with pytest.raises(ProtocolError, match="too deeply"):
            memory.result_from_tuple(endless)
        while isinstance(data, list):  # taken apart by hand: its destructor would recurse, too
            data = data[0][1] if isinstance(data[0], list) else None


class TestStoring:
    async def test_save_restore_delete(self, queue):
        found = group(queue, "a", "b", parent=queue.AsyncResult("p"))
        assert await found.save() is found
        again = await GroupResult.restore("g", queue)
        assert again == found
        assert again.parent == found.parent
        await again.delete()
        assert await GroupResult.restore("g", queue) is None

    @pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack", "pickle"])
    async def test_in_every_serializer(self, serializer):
        settings = {"result_serializer": serializer, "result_compression": "gzip"}
        async with TaskQueue(memory_url(), accept_content=[serializer], **settings) as queue:
            await group(queue, "a", "b").save()
            assert await GroupResult.restore("g", queue) == group(queue, "a", "b")

    @pytest.mark.parametrize(
        "stored", [b"garbage", b"[]", b"{}", b'{"result": 5}', b'{"result": [["a", null], null]}']
    )
    async def test_what_is_no_group(self, memory, stored):
        await memory.results.backend.save_group("g", stored, 10)
        with pytest.raises(ProtocolError):
            await GroupResult.restore("g", memory)


class TestTrees:
    async def test_children_are_tasks_and_groups(self, memory):
        tree = [[["a", None], None], [["g", None], [[["b", None], None], [["c", None], None]]], [["top", None], None]]
        await put(memory, "top", 1, children=tree)
        task, found = await memory.AsyncResult("top").children()  # it does not contain itself
        assert task == memory.AsyncResult("a")
        assert found == group(memory, "b", "c")

    @pytest.mark.parametrize("children", [[5], [[]], [[["a", None]]], ["abc"], [[[5, None], None]]], ids=str)
    async def test_children_of_something_else(self, memory, children):
        await put(memory, "top", 1, children=children)
        with pytest.raises(ProtocolError):
            await memory.AsyncResult("top").children()

    async def family(self, queue):
        await put(queue, "top", 0, children=[[["a", None], None], [["g", None], [[["b", None], None]]]])
        await put(queue, "a", 1, children=[[["top", None], None]])  # a circle
        await put(queue, "b", 2, children=[[["c", None], None]])
        await put(queue, "c", 3)

    async def test_collecting(self, memory):
        await self.family(memory)
        top = memory.AsyncResult("top")
        found = [(result.id, value) async for result, value in top.collect()]
        assert found == [("top", 0), ("a", 1), ("g", [2]), ("b", 2), ("c", 3)]
        assert await top.get_leaf() == 3
        senders = [(sender.id if sender else None, node.id) async for sender, node in top.iterdeps()]
        assert senders == [(None, "top"), ("top", "a"), ("top", "g"), ("g", "b"), ("b", "c")]

    async def test_what_is_not_done(self, memory):
        await put(memory, "top", 0, children=[[["a", None], None]])
        top = memory.AsyncResult("top")
        with pytest.raises(IncompleteStream, match="a is not done"):
            async for _ in top.iterdeps():
                pass
        assert [node.id async for _, node in top.iterdeps(intermediate=True)] == ["top", "a"]
        collecting = asyncio.create_task(top.get_leaf())
        await watched(memory, 1)
        await put(memory, "a", 5)
        assert await soon(collecting) == 5


class TestLifetimes:
    async def test_failures_may_be_kept_longer(self):
        async with TaskQueue(memory_url(), result_expires=10, result_failure_expires=0) as queue:
            failed = ResultDocument(task_id="a", status="FAILURE", result=exception_to_data(ValueError()))
            assert queue.results.record(failed).ttl is None
            assert queue.results.record(ResultDocument(task_id="a", status="SUCCESS")).ttl == 10
            assert queue.results.record(ResultDocument(task_id="a", status="REVOKED")).ttl == 10
        async with TaskQueue(memory_url(), result_expires=10) as queue:
            assert queue.results.record(failed).ttl == 10
