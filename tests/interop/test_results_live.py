"""Results in every serializer, and Celery's result objects on ours and ours on Celery's."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator

import pytest
import redis
from celery import Celery, chain, group
from celery.result import GroupResult as CeleryGroup
from celery.result import result_from_tuple as celery_from_tuple
from formats_fleet import PATIENCE, SERIALIZERS, Fleet, celery_app

from aioretryq import GroupResult, TaskQueue, Worker
from queues import soon

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery
FORMATS = [(serializer, compression) for serializer in SERIALIZERS for compression in (None, "zlib", "zstd")]


@pytest.fixture
async def queue(fleet: Fleet) -> AsyncIterator[TaskQueue]:
    async with fleet.queue(result_extended=True) as queue:
        yield queue


@pytest.fixture
async def working(queue: TaskQueue) -> AsyncIterator[TaskQueue]:
    @queue.task(name="ours.echo")
    async def echo(value):
        return value

    @queue.task(name="ours.fail")
    async def fail(message):
        raise LookupError(message, 42)

    @queue.task(name="ours.parent", bind=True, track_started=True)
    async def parent(self, value, *, key):
        await self.update_state(state="PROGRESS", meta={"percent": 50})
        await echo.delay(value)
        return value

    async with Worker(queue, name="ours-worker").running():
        yield queue


async def send(client: Celery, name: str, *args, **options):
    return await asyncio.to_thread(client.send_task, name, args, **options)


async def value_of(result):
    return await asyncio.to_thread(result.get, timeout=PATIENCE)


@pytest.mark.parametrize(("serializer", "compression"), FORMATS)
class TestEverySerializer:
    async def test_we_read_what_a_celery_worker_stores(self, queue: TaskQueue, serializer, compression) -> None:
        value = {"x": [1, None, "é" * 100]}
        kind = f"{serializer}.{compression}"
        good = await queue.send_task(f"echo.{kind}", [value], queue="theirs")
        bad = await queue.send_task(f"fail.{kind}", ["no"], queue="theirs")
        assert await good.get(timeout=PATIENCE) == value
        assert (await good.name(), list(await good.args()), await good.queue()) == (f"echo.{kind}", [value], "theirs")
        with pytest.raises(LookupError) as raised:
            await bad.get(timeout=PATIENCE)
        assert raised.value.args == ("no", 42)
        assert "LookupError" in (await bad.traceback() or "")

    async def test_celery_reads_what_our_worker_stores(self, fleet: Fleet, serializer, compression) -> None:
        value = {"x": [1, None, "é" * 100]}
        formats = {"result_serializer": serializer, "result_compression": compression}
        async with fleet.queue(**formats) as queue:

            @queue.task(name="ours.echo")
            async def echo(value):
                return value

            @queue.task(name="ours.fail")
            async def fail(message):
                raise LookupError(message, 42)

            with celery_app(fleet, result_serializer=serializer) as app:
                async with Worker(queue).running():
                    good, bad = await send(app, "ours.echo", value), await send(app, "ours.fail", "no")
                    assert await value_of(good) == value
                    with pytest.raises(LookupError) as raised:
                        await value_of(bad)
                    assert raised.value.args == ("no", 42)
                    again = app.AsyncResult(bad.id)
                    assert (again.state, "LookupError" in again.traceback) == ("FAILURE", True)


class TestCelerysObjectsOnOurs:
    async def test_everything_known_of_a_task(self, working: TaskQueue, client: Celery) -> None:
        result = await send(client, "ours.parent", 5, kwargs={"key": "k"})
        assert await value_of(result) == 5
        found = client.AsyncResult(result.id)
        assert (found.state, found.result, found.successful(), found.exists()) == ("SUCCESS", 5, True, True)
        assert (found.name, found.args, found.kwargs, found.retries) == ("ours.parent", [5], {"key": "k"}, 0)
        assert (found.worker.split("@")[0], found.queue) == ("ours-worker", "ours")
        assert isinstance(found.date_done, datetime.datetime)
        assert found.date_done.tzinfo is not None
        (child,) = found.children
        assert await value_of(child) == 5
        assert await asyncio.to_thread(lambda: [value for _, value in found.collect()]) == [5, 5]
        await asyncio.to_thread(found.forget)
        assert (client.AsyncResult(result.id).state, found.exists()) == ("PENDING", False)

    async def test_states_on_the_way(self, working: TaskQueue, client: Celery) -> None:
        go = asyncio.Event()

        @working.task(name="ours.slow", bind=True, track_started=True)
        async def slow(self):
            await go.wait()
            if self.request.retries == 0:
                go.clear()
                raise self.retry(exc=OSError(5, "not yet"), countdown=0)

        result = await working.send_task("ours.slow")
        looked = client.AsyncResult(result.id)
        seen = {}
        async with asyncio.timeout(PATIENCE):
            async for update in result.updates():
                seen[update.status] = (looked.state, looked.result)
                go.set()
        assert seen["STARTED"][0] in ("STARTED", "RETRY", "SUCCESS")
        assert seen["SUCCESS"] == ("SUCCESS", None)

    async def test_a_revoked_task(self, working: TaskQueue, client: Celery) -> None:
        result = await working.send_task("ours.echo", [1], countdown=600)
        await result.revoke()
        assert client.AsyncResult(result.id).state == "REVOKED"
        with pytest.raises(Exception, match="revoked") as raised:
            await value_of(client.AsyncResult(result.id))
        assert type(raised.value).__module__ == "celery.exceptions"

    async def test_groups(self, working: TaskQueue, client: Celery) -> None:
        sent = [await working.send_task("ours.echo", [n]) for n in range(3)]
        await GroupResult("our-group", sent, working).save()
        found = await asyncio.to_thread(CeleryGroup.restore, "our-group", app=client)
        assert await value_of(found) == [0, 1, 2]
        assert await asyncio.to_thread(found.successful)
        await asyncio.to_thread(found.delete)
        assert await GroupResult.restore("our-group", working) is None

    async def test_tuples(self, working: TaskQueue, client: Celery) -> None:
        first = await working.send_task("ours.echo", [1])
        members = [await working.send_task("ours.echo", [n]) for n in (2, 3)]
        ours = GroupResult("g", members, working, parent=first)
        theirs = celery_from_tuple(ours.as_tuple(), app=client)
        assert (theirs.as_tuple(), theirs.parent.id) == (ours.as_tuple(), first.id)
        assert await value_of(theirs) == [2, 3]


class TestOursOnCelerys:
    async def test_children_of_a_celery_task(self, queue: TaskQueue) -> None:
        result = await queue.send_task("theirs.parent", queue="theirs")
        assert await result.get(timeout=PATIENCE) == "sent"
        task, members = await result.children()
        assert isinstance(members, GroupResult)
        assert (await task.get(timeout=PATIENCE), await members.get(timeout=PATIENCE)) == (1, [2, 3])
        values = [value async for _, value in result.collect()]
        assert values == ["sent", 1, [2, 3], 2, 3]
        assert (await result.worker() or "").startswith("celery@")

    async def test_a_retried_celery_task_lists_itself(self, queue: TaskQueue) -> None:
        result = await queue.send_task("theirs.again", queue="theirs")
        assert await result.get(timeout=PATIENCE) == "done"
        assert await result.retries() == 1
        assert await result.children() == []
        assert await soon(result.get_leaf()) == "done"

    async def test_states_on_the_way(self, queue: TaskQueue) -> None:
        result = await queue.send_task("theirs.progress", queue="theirs")
        async with asyncio.timeout(PATIENCE):
            seen = {update.status: update.result async for update in result.updates()}
        assert seen.get("PROGRESS", {"percent": 50}) == {"percent": 50}
        assert seen["SUCCESS"] is None

    async def test_forgetting(self, fleet: Fleet, queue: TaskQueue) -> None:
        result = await queue.send_task("echo.pickle.zlib", [1], queue="theirs")
        assert await result.get(timeout=PATIENCE) == 1
        assert await result.exists()
        await result.forget()
        with redis.Redis.from_url(fleet.url) as server:
            assert not server.exists(f"celery-task-meta-{result.id}")

    async def test_a_chain_that_fails_in_the_middle(self, queue: TaskQueue, client: Celery) -> None:
        steps = [client.signature(name, queue="theirs") for name in ("echo", "fail", "echo")]
        for step, name in zip(steps, ("echo.json.None", "fail.json.None", "echo.json.None"), strict=True):
            step["task"] = name
        steps[0].args = ("start",)
        sent = await asyncio.to_thread(chain(*steps).apply_async)
        ours = queue.result_from_tuple(sent.as_tuple())
        assert ours.as_list() == sent.as_list()
        with pytest.raises(LookupError, match="start"):
            await ours.get(timeout=PATIENCE)
        assert ours.parent is not None
        assert await ours.parent.parent.get(timeout=PATIENCE) == "start"

    async def test_groups(self, queue: TaskQueue, client: Celery) -> None:
        tasks = [client.signature("echo.json.None", (n,), queue="theirs") for n in range(4)]
        sent = await asyncio.to_thread(group(tasks, app=client).apply_async)
        await asyncio.to_thread(sent.save)
        found = await GroupResult.restore(sent.id, queue)
        assert found is not None
        assert found.as_tuple() == sent.as_tuple()
        assert await found.get(timeout=PATIENCE) == [0, 1, 2, 3]
        assert (await found.ready(), await found.completed_count()) == (True, 4)
        assert {result.id async for result in found.as_completed()} == {result.id for result in sent.results}
        await found.delete()
        assert await asyncio.to_thread(CeleryGroup.restore, sent.id, app=client) is None

    @pytest.mark.parametrize("serializer", ["yaml", "msgpack", "pickle"])
    async def test_groups_in_every_serializer(self, fleet: Fleet, serializer) -> None:
        with celery_app(fleet, result_serializer=serializer, result_compression="zlib") as app:
            saved = CeleryGroup(f"g-{serializer}", [app.AsyncResult("a"), app.AsyncResult("b")], app=app)
            await asyncio.to_thread(saved.save)
            async with fleet.queue(result_serializer=serializer, result_compression="bzip2") as queue:
                found = await GroupResult.restore(saved.id, queue)
                assert found is not None
                assert found.as_tuple() == saved.as_tuple()
                await found.save()
            assert await asyncio.to_thread(CeleryGroup.restore, saved.id, app=app) == saved
