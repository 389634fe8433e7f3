"""Tasks that every worker knows."""

from __future__ import annotations

import pytest
from canvas.composing import s, written
from celery import chord

from aioretryq import ChordError
from aioretryq.workflows.sending import send_signature
from queues import soon, until


async def run(queue, name, *args, **kwargs):
    return await soon((await queue.send_task(name, args, kwargs)).get())


async def test_map_and_starmap(queue, worker):
    assert await run(queue, "celery.map", task=written(s("add")), it=[1, 2]) == [1, 2]
    assert await run(queue, "celery.starmap", task=written(s("add")), it=[[1, 2], [3, 4]]) == [3, 7]
    assert await run(queue, "celery.map", task=written(s("total")), it=[[1, 2], [3]]) == [3, 3]
    with pytest.raises(Exception, match=r"w\.nowhere"):
        await run(queue, "celery.map", task=written(s("nowhere")), it=[1])
    with pytest.raises(Exception, match="signature"):
        await run(queue, "celery.map", task=5, it=[1])


async def test_chunks_and_groups(queue, worker):
    _, members = await run(queue, "celery.chunks", task=written(s("add")), it=[[1, 2], [3, 4], [5, 6]], n=2)
    parts = [queue.AsyncResult(task_id) for (task_id, _), _ in members]
    assert [await soon(part.get()) for part in parts] == [[3, 7], [11]]
    for size in (0, -1, "2"):
        with pytest.raises(Exception, match=r"celery\.chunks takes"):
            await run(queue, "celery.chunks", task=written(s("add")), it=[[1, 2]], n=size)
    tasks = [written(s("add", 1, task_id="A")), written(s("add", 2, task_id="B"))]
    assert await run(queue, "celery.group", tasks, ["tree"], "G", [10]) == ["tree"]
    assert [await soon(queue.AsyncResult(task_id).get()) for task_id in "AB"] == [11, 12]


async def test_chunks_go_where_their_task_goes(queue, worker):
    queue.conf.task_routes = {"w.add": "adding"}
    tree = await run(queue, "celery.chunks", task=written(s("add")), it=[[1, 2], [3, 4]], n=1)
    assert len(tree[1]) == 2
    found = (await queue.broker.claim(["adding"], limit=10)).deliveries
    assert [queue.decode(each.body).task for each in found] == ["celery.starmap"] * 2


async def test_chords(queue, worker):
    header = [written(s("add", 1)), written(s("add", 2))]
    (task_id, parent), _ = await run(queue, "celery.chord", header, written(s("total")), countdown=1, interval=None)
    assert await soon(queue.AsyncResult(task_id).get()) == 3
    assert len(parent[1]) == 2


async def test_the_rest(queue, worker):
    assert await run(queue, "celery.accumulate", 1, 2) == [1, 2]
    assert await run(queue, "celery.accumulate", 1, 2, index=1) == 2
    assert await run(queue, "celery.backend_cleanup") == 0
    with pytest.raises(NotImplementedError):
        await run(queue, "celery.chain")


async def test_they_are_not_among_the_tasks_of_a_queue(queue):
    assert not [name for name in queue.tasks if name.startswith("celery.")]
    assert queue.find_task("celery.map").name == "celery.map"


class TestUnlocking:
    """`celery.chord_unlock`, which Celery sends for the backends that cannot count."""

    async def send(self, queue, *results, callback, **kwargs):
        options = {"interval": 0.01, "result": [[[task_id, None], None] for task_id in results], **kwargs}
        return await queue.send_task("celery.chord_unlock", ["G", written(callback)], options)

    async def test_the_body_is_sent_when_all_parts_are_there(self, queue, worker):
        await self.send(queue, "A", "B", callback=s("total", task_id="T"))
        for task_id, number in (("A", 1), ("B", 2)):
            await queue.send_task("w.add", [number], task_id=task_id)
        assert await soon(queue.AsyncResult("T").get()) == 3

    async def test_parts_that_are_groups(self, queue, worker):
        tree = [[["G", None], [[["A", None], None], [["B", None], None]]], [["C", None], None]]
        await self.send(queue, callback=s("echo", task_id="T"), result=tree)
        for task_id, number in (("A", 1), ("B", 2), ("C", 3)):
            await queue.send_task("w.add", [number], task_id=task_id)
        assert await soon(queue.AsyncResult("T").get()) == [[1, 2], 3]

    async def test_a_part_that_fails_fails_the_body(self, queue, worker, calls):
        body = s("total", task_id="T", link_error=[written(s("told")), written(s("told_id"))])
        await queue.send_task("w.fail", task_id="A")
        await self.send(queue, "A", callback=chord([s("add", 1)], body))
        with pytest.raises(ChordError, match=r"Dependency A raised ValueError\('broken'\)"):
            await soon(queue.AsyncResult("T").get())
        await until(lambda: len(calls) == 2)
        assert {call[:2] for call in calls} == {("told", "T"), ("told_id", "T")}

    async def test_it_does_not_look_for_ever(self, queue, worker):
        await self.send(queue, "nobody", callback=s("total", task_id="T"), max_retries=2)
        with pytest.raises(ChordError, match="not there"):
            await soon(queue.AsyncResult("T").get())


async def test_a_workflow_sent_by_a_task_becomes_its_children(queue, worker):
    @queue.task(name="w.parent", bind=True)
    async def parent(self):
        handle = await send_signature(self.app, written(s("add", 1) | s("add", 2)))
        return handle.id

    result = await queue.send_task("w.parent")
    last = await soon(result.get())
    assert await soon(queue.AsyncResult(last).get()) == 3
    (child,) = await result.children()
    assert await soon(child.get()) == 1
    document = await queue.results.get_task_meta(last)
    assert document.parent_id == child.id
