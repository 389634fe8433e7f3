"""Sets of results, and what groups have in common with them, on each broker."""

from __future__ import annotations

import asyncio

import pytest
import redis

from aioretryq import AsyncResult, GroupResult, ResultTimeout, TaskQueue
from aioretryq.ids import Ids, new_id
from aioretryq.protocol.exceptions import exception_to_data
from aioretryq.protocol.result import ResultDocument
from aioretryq.results.many import ManyResults
from aioretryq.results.sets import ResultSet
from queues import memory_url, soon, until

MANY = 10_000


@pytest.fixture
async def queue(url):
    async with TaskQueue(url) as queue:
        yield queue


@pytest.fixture
async def memory():
    async with TaskQueue(memory_url()) as queue:
        yield queue


def record(queue, task_id, result=None, status="SUCCESS", **more):
    if isinstance(result, Exception):
        result, status = exception_to_data(result), "FAILURE"
    return queue.results.record(ResultDocument(task_id=task_id, status=status, result=result, **more))


async def put(queue, task_id, result=None, status="SUCCESS", **more):
    await queue.results.store([record(queue, task_id, result, status, **more)])


async def put_all(queue, ids, value=lambda number: number):
    for start in range(0, len(ids), 500):
        await queue.results.store(
            [record(queue, each, value(number)) for number, each in enumerate(ids[start : start + 500], start)]
        )


def results(queue, *ids):
    return [queue.AsyncResult(task_id) for task_id in ids]


def watched(queue, count):
    return until(lambda: queue.connections.consumer.subscribed == count)


def idle(queue):
    consumer = queue.connections.consumer
    return until(lambda: consumer.watching == consumer.subscribed == 0)


class TestMembers:
    async def test_they_come_and_go(self, memory):
        a, b, c, d = results(memory, *"abcd")
        found = ResultSet([a])
        found.add(b)
        found.add(memory.AsyncResult("b"))
        found.update([a, c, c, d])
        assert (list(found), len(found), found[1]) == ([a, b, c, d], 4, b)
        found.remove(b)
        found.remove("c")
        found.discard("c")
        with pytest.raises(KeyError):
            found.remove(c)
        assert list(found) == [a, d]
        found.add(b)
        assert list(found) == [a, d, b]
        assert found == ResultSet([a, d, b]) != ResultSet([a])
        assert found != GroupResult("g", [a, d, b], memory)
        found.clear()
        assert (list(found), bool(found), await found.get(), found.app) == ([], True, [], memory)

    async def test_of_many(self, memory):
        ids = [new_id() for _ in range(1000)]
        many = ManyResults(memory, ids)
        found = ResultSet(many)
        assert found.results is many
        assert (repr(found), found.app, found.supports_native_join) == ("<ResultSet of 1000>", memory, True)
        found.add(memory.AsyncResult(ids[5]))
        assert found.results == many
        found.add(memory.AsyncResult("another"))
        assert (len(found), len(many), found.as_list()) == (1001, 1000, [*ids, "another"])

    async def test_ids_of_other_kinds(self, memory):
        ids = ["a", new_id(), new_id().upper(), "", "0" * 32, *(new_id() for _ in range(600)), "z"]
        packed = Ids(ids)
        assert (list(packed), packed[3], packed[-1], packed[1:4], packed[::-1]) == (
            ids,
            "",
            "z",
            ids[1:4],
            ids[::-1],
        )
        one_by_one = Ids()
        for each in ids:
            one_by_one.append(each)
        assert one_by_one == packed


class TestWaiting:
    async def test_values_in_the_order_of_the_set(self, queue):
        found = ResultSet(results(queue, *"abc"))
        waiting = asyncio.create_task(found.join_native(timeout=15))
        await watched(queue, 3)
        for task_id in "cab":
            await put(queue, task_id, task_id * 2)
        assert await soon(waiting) == await found == await found.join() == ["aa", "bb", "cc"]
        with pytest.raises(ResultTimeout, match="A set of 1 results"):
            await ResultSet(results(queue, "never")).get(timeout=0.01)
        await idle(queue)

    async def test_a_callback_instead_of_a_list(self, memory):
        await put_all(memory, ["a", "b"])
        found, seen, heard = ResultSet(results(memory, "a", "b")), [], []

        async def hear(task_id, value):
            heard.append((task_id, value))

        assert await found.get(callback=lambda task_id, value: seen.append((task_id, value))) == []
        assert await found.get(callback=hear, timeout=0) == []
        assert seen == heard == [("a", 0), ("b", 1)]

    async def test_the_same_task_twice(self, memory):
        await put(memory, "a", 7)
        found = GroupResult("g", results(memory, "a", "a"), memory)
        assert await soon(found.get()) == [7, 7]

    async def test_values_as_they_come(self, queue):
        found = ResultSet(results(queue, *"abc"))
        values = found.iterate(timeout=15)
        for task_id in "bca":
            await put(queue, task_id, task_id)
            assert await soon(anext(values)) == task_id
        with pytest.raises(StopAsyncIteration):
            await anext(values)
        with pytest.raises(ResultTimeout):
            await soon(anext(ResultSet(results(queue, "never")).iterate(timeout=0.01)))
        await put(queue, "bad", ValueError("x"))
        with pytest.raises(ValueError, match="x"):
            await soon(anext(ResultSet(results(queue, "bad")).iterate()))
        await idle(queue)

    async def test_everything_that_is_stored_as_it_comes(self, memory):
        await put(memory, "a", 5, date_done="2030-01-01T00:00:00+00:00")
        await put(memory, "b", ValueError("x"))
        found = {task_id: meta async for task_id, meta in ResultSet(results(memory, "a", "b")).iter_native()}
        assert (found["a"]["status"], found["a"]["result"]) == ("SUCCESS", 5)
        assert found["a"]["date_done"] == "2030-01-01T00:00:00+00:00"
        assert repr(found["b"]["result"]) == "ValueError('x')"

    async def test_states_as_they_change(self, queue):
        seen = []
        async with asyncio.timeout(15):
            await put(queue, "a", status="STARTED")
            async for result, update in ResultSet(results(queue, "a", "b")).updates():
                seen.append((result.id, update.status, update.result))
                if len(seen) == 1:
                    await put(queue, "b", 2)
                if len(seen) == 2:
                    await put(queue, "a", 1)
        assert seen == [("a", "STARTED", None), ("b", "SUCCESS", 2), ("a", "SUCCESS", 1)]
        await idle(queue)

    async def test_ignored_results_are_there(self, memory):
        silent = memory.AsyncResult("silent")
        silent.ignored = True
        await put(memory, "a", 1)
        found = GroupResult("g", [silent, memory.AsyncResult("a")], memory)
        assert await soon(found.get()) == [None, 1]
        assert [result.id async for result in found.as_completed()] == ["silent", "a"]
        many = ManyResults(memory, [new_id()])
        many.add([new_id()], ignored=True)
        assert await soon(ResultSet(many).get()) == [None, None]

    async def test_progress(self, queue):
        inner = GroupResult("i", results(queue, "c", "d"), queue)
        found = GroupResult("g", [*results(queue, "a", "b"), inner], queue)
        seen = []
        await put(queue, "a", 1)
        async with asyncio.timeout(15):
            async for done, total in found.progress():
                seen.append(done)
                assert total == 4
                if done and done < 4:
                    await put(queue, "_bcd"[done], ValueError() if done == 2 else 1)
        assert seen == [0, 1, 2, 3, 4]
        assert [each async for each in GroupResult("g", [], queue).progress()] == [(0, 0)]
        await idle(queue)

    async def test_groups_are_completed_with_their_last_task(self, memory):
        inner, empty = GroupResult("i", results(memory, "b", "c"), memory), GroupResult("e", [], memory)
        found = GroupResult("g", [memory.AsyncResult("a"), inner, empty], memory)
        seen = []
        async with asyncio.timeout(15):
            async for result in found.as_completed():
                seen.append(result.id)
                if len(seen) == 1:
                    await put(memory, "b", 1)
                    await put(memory, "a", 1)
                if len(seen) == 2:
                    await put(memory, "c", 1)
        assert seen == ["e", "a", "i"]

    async def test_asking(self, memory):
        found = ResultSet(results(memory, "a", "b"))
        await put(memory, "a", 1)
        await found.maybe_throw()
        assert (await found.ready(), await found.waiting(), await found.completed_count()) == (False, True, 1)
        await put(memory, "b", ValueError("x"))
        assert (await found.ready(), await found.failed(), await found.successful()) == (True, True, False)
        for throws in (found.maybe_throw, found.throw, found[1].maybe_throw, found[1].throw):
            with pytest.raises(ValueError, match="x"):
                await throws()
        told = []
        await found.maybe_throw(lambda *each: told.append(each), propagate=False)
        assert [task_id for task_id, _ in told] == ["a", "b"]
        assert await found[0].maybe_throw(callback=lambda *each: told.append(each)) == 1
        assert told[-1] == ("a", 1)


class TestParents:
    async def test_each_member_has_its_own(self, queue):
        """Of two chains in a group the exception of the step that failed, not that of what came after it."""
        members = [AsyncResult(f"last{n}", queue, parent=queue.AsyncResult(f"first{n}")) for n in range(2)]
        found = GroupResult("g", members, queue)
        waiting = asyncio.create_task(found.get(timeout=15))
        await watched(queue, 4)
        await put(queue, "first1", KeyError("why"))
        with pytest.raises(KeyError, match="why"):
            await soon(waiting)
        await put(queue, "last0", 1)
        await put(queue, "last1", ValueError("follows"))
        with pytest.raises(KeyError, match="why"):
            await soon(found.get())
        with pytest.raises(ValueError, match="follows"):
            await soon(found.get(follow_parents=False))
        await idle(queue)

    @pytest.mark.parametrize("of_many", [False, True])
    async def test_a_body_of_a_large_header(self, queue, of_many):
        ids = [new_id() for _ in range(3000)]
        members = ManyResults(queue, ids) if of_many else results(queue, *ids)
        body = AsyncResult("body", queue, parent=GroupResult("g", members, queue))
        waiting = asyncio.create_task(body.get(timeout=30))
        await watched(queue, 1)
        await put(queue, ids[2500], KeyError("part"))
        await put(queue, "body", ValueError("ChordError"))
        for each in (waiting, body.get(), body.get(timeout=0)):
            with pytest.raises(KeyError, match="part"):
                await soon(each)
        await queue.results.forget(["body"])
        await put(queue, "body", 5)
        assert await soon(body.get()) == 5
        assert repr(await soon(body.get(propagate=False))) == "5"
        await idle(queue)

    async def test_its_parts_are_fetched_together(self, redis_url):
        async with TaskQueue(redis_url) as queue:
            ids = [new_id() for _ in range(5000)]
            body = AsyncResult("body", queue, parent=GroupResult("g", ManyResults(queue, ids), queue))
            await put(queue, "body", 5)
            with redis.Redis.from_url(redis_url) as admin:
                admin.config_resetstat()
                assert await soon(body.get()) == 5
                asked = {name: found["calls"] for name, found in admin.info("commandstats").items()}
        assert sum(asked.get(f"cmdstat_{name}", 0) for name in ("mget", "get", "exists", "subscribe")) <= 15

    async def test_a_part_that_fails_is_noticed_although_nobody_listens_to_it(self):
        async with TaskQueue(memory_url(), result_poll_interval=0.05) as queue:
            ids = [new_id() for _ in range(3000)]
            body = AsyncResult("body", queue, parent=GroupResult("g", ManyResults(queue, ids), queue))
            waiting = asyncio.create_task(body.get())
            await watched(queue, 1)
            await put(queue, ids[-1], KeyError("part"))
            with pytest.raises(KeyError, match="part"):
                await soon(waiting)

    async def test_a_long_chain(self, memory):
        last = None
        for number in range(5000):
            last = AsyncResult(f"step-{number}", memory, parent=last)
        await put_all(memory, last.as_list())
        assert await soon(last.get()) == 0
        again = memory.result_from_tuple(last.as_tuple())
        assert again.as_list() == last.as_list()
        await put(memory, "step-7", ValueError("seven"))
        await last.forget()
        assert not await last.exists()


class TestMany:
    @pytest.fixture
    def ids(self):
        return [new_id() for _ in range(MANY)]

    async def test_all_that_is_there(self, queue, ids):
        await put_all(queue, ids)
        found = GroupResult("g", ManyResults(queue, ids), queue)
        assert await soon(found.get()) == list(range(MANY))
        assert await soon(ResultSet(results(queue, *ids)).get()) == list(range(MANY))
        assert (await found.ready(), await found.successful(), await found.completed_count()) == (True, True, MANY)
        await found.forget()
        assert not await found.failed()
        await idle(queue)

    async def test_all_that_comes(self, queue, ids):
        found = GroupResult("g", ManyResults(queue, ids), queue)
        tasks = len(asyncio.all_tasks())
        waiting = asyncio.create_task(found.get())
        moving, seen = asyncio.create_task(self.progress(found)), asyncio.create_task(self.completed(found))
        await watched(queue, MANY)
        assert len(asyncio.all_tasks()) < tasks + 20
        await put_all(queue, ids[::-1], value=lambda number: MANY - 1 - number)
        assert await soon(waiting) == list(range(MANY))
        counts = await soon(moving)
        assert counts == sorted(counts)
        assert (counts[0], counts[-1], 2 < len(counts) <= MANY + 1) == (0, MANY, True)
        assert sorted(await soon(seen)) == list(range(MANY))
        await idle(queue)

    async def progress(self, found):
        return [done async for done, _ in found.progress()]

    async def completed(self, found):
        """What came with the news is not asked for again."""
        return [await result.get() async for result in found.as_completed()]

    async def test_the_first_failure_ends_it(self, queue, ids):
        found = GroupResult("g", ManyResults(queue, ids), queue)
        waiting = asyncio.create_task(found.get())
        await watched(queue, MANY)
        await put(queue, ids[7777], ValueError("bad"))
        with pytest.raises(ValueError, match="bad"):
            await soon(waiting)
        await idle(queue)

    async def test_timeout(self, queue, ids):
        found = GroupResult("g", ManyResults(queue, ids), queue)
        with pytest.raises(ResultTimeout, match="Group g"):
            await found.get(timeout=0.05)
        with pytest.raises(ResultTimeout):
            await found.get(timeout=0)
        await idle(queue)

    async def test_save_and_restore(self, queue, ids):
        found = GroupResult("g", ManyResults(queue, ids), queue)
        await found.save()
        again = await GroupResult.restore("g", app=queue)
        assert again.as_list() == ids
        assert again == found
        assert again.as_tuple() == found.as_tuple()


class TestTrees:
    async def test_of_a_group(self, memory):
        await put(memory, "a", 1, children=[[["c", None], None]])
        await put(memory, "b", 2)
        await put(memory, "c", 3)
        found = GroupResult("g", results(memory, "a", "b"), memory)
        assert [(result.id, value) async for result, value in found.collect()] == [
            ("g", [1, 2]),
            ("a", 1),
            ("b", 2),
            ("c", 3),
        ]
        assert await found.get_leaf() == 3
        graph = await found.build_graph()
        assert {node.id: [child.id for child in children] for node, children in graph.items()} == {
            "g": ["a", "b"],
            "a": ["c"],
            "b": [],
            "c": [],
        }

    async def test_celerys_names(self, memory):
        found = GroupResult(id="g", results=results(memory, "a"))
        await found.save()
        assert await GroupResult.restore("g", app=memory) == found
        assert found.backend is memory.results.backend

    async def test_stamps(self, memory):
        await put(memory, "a", 1, extra={"stamped_headers": ["x", "y"], "x": ["1"], "y": "2", "z": 3})
        await put(memory, "b", 1)
        assert await memory.AsyncResult("a").stamped_headers() == ["x", "y"]
        assert await memory.AsyncResult("a").stamps() == {"x": ["1"], "y": "2"}
        assert (await memory.AsyncResult("b").stamped_headers(), await memory.AsyncResult("b").stamps()) == (None, {})
