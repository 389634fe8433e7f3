"""Tasks of ours as callbacks, errbacks and next steps of each other."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from canvas.composing import app as celery_app
from celery import Celery

from aioretryq import Signature, TaskQueue, UnknownSettingError
from queues import memory_url, soon, until


@pytest.fixture
def tasks(queue):
    return {name.removeprefix("w."): task for name, task in queue.tasks.items() if name.startswith("w.")}


async def end_of(result):
    """The value of what follows from it, in a line."""
    await soon(result.get())
    for child in await result.children():
        return await end_of(child)
    return await result.get()


async def test_a_task_is_a_link(worker, tasks):
    add = tasks["add"]
    assert await soon(end_of(await add.apply_async((1, 2), link=tasks["echo"]))) == 3
    assert await soon(end_of(await add.apply_async((1, 2), link=add.s(10)))) == 13
    assert await soon(end_of(await add.apply_async((1, 2), link=[add.s(y=20)]))) == 23
    assert await soon(end_of(await add.apply_async((1, 2), link=add.si(5, 6)))) == 11
    linked = add.signature((100,), link=[add.s(1000), {"task": "w.none", "options": {"queue": "elsewhere"}}])
    assert await soon(end_of(await add.apply_async((1, 2), link=add.signature((7,), link=add.s(8))))) == 18
    assert [each["task"] for each in linked["options"]["link"]] == ["w.add", "w.none"]


async def test_several_links_are_a_group(worker, tasks):
    add = tasks["add"]
    result = await add.apply_async((1, 2), link=[add.s(10), {"task": "w.add", "args": [20]}, tasks["echo"]])
    await soon(result.get())
    assert [await soon(child.get()) for group in await result.children() for child in await group.children()] == [
        13,
        23,
        3,
    ]


async def test_a_task_is_the_next_step(worker, tasks):
    add = tasks["add"]
    assert await soon(end_of(await add.apply_async((1, 2), chain=[add.s(100), tasks["echo"], add.s(10)]))) == 113


async def test_a_task_is_an_errback(queue, worker, tasks, calls):
    failed = await tasks["fail"].apply_async((1,), link_error=[tasks["told"], tasks["told_in_thread"].s(extra=5)])
    with pytest.raises(ValueError, match="broken"):
        await soon(failed.get())
    await until(lambda: len(calls) == 2)
    assert sorted(calls) == [
        ("told", failed.id, "ValueError", "broken"),
        ("told_in_thread", failed.id, "ValueError", 5),
    ]


async def test_options_travel_with_a_signature(queue, worker, tasks):
    later = tasks["add"].signature(
        (1,),
        task_id="later",
        priority=3,
        eta=datetime.now(UTC) - timedelta(seconds=1),
        stamps={"who": "me"},
        stamped_headers=["who"],
    )
    await tasks["add"].apply_async((1, 2), link=later)
    assert await soon(queue.AsyncResult("later").get()) == 4
    assert later["options"]["who"] == "me"


async def test_tasks_of_celery_are_links(worker, tasks):
    celery = Celery("links", set_as_current=False)

    @celery.task(name="w.add")
    def add(x, y=0): ...

    assert await soon(end_of(await tasks["add"].apply_async((1, 2), link=add.s(10)))) == 13
    assert await soon(end_of(await tasks["add"].apply_async((1, 2), link=add))) == 3


@pytest.fixture
def add():
    queue = TaskQueue(memory_url())

    @queue.task(name="w.add", bind=True)
    async def add(self, x, y=0):
        return x + y

    return add


def test_signatures_are_written_as_celery_writes_them(add):
    theirs = celery_app.signature
    assert written(add.s(1, y=2)) == written(theirs("w.add", args=(1,), kwargs={"y": 2}))
    assert written(add.si(1, 2)) == written(theirs("w.add", args=(1, 2), immutable=True))
    assert written(add.signature((1,), countdown=3, queue="q")) == written(
        theirs("w.add", args=(1,), options={"countdown": 3, "queue": "q"})
    )
    assert written(add.signature()) == written(theirs("w.add"))


def written(signature):
    return json.loads(json.dumps(signature.to_dict() if isinstance(signature, Signature) else signature))


def test_mistakes_in_a_signature_are_told_at_once(add):
    with pytest.raises(UnknownSettingError, match="countdown"):
        add.signature((1,), count_down=3)
    with pytest.raises(TypeError, match=r"w\.add"):
        add.si()
    with pytest.raises(TypeError, match=r"w\.add"):
        add.si(1, z=2)
    add.s()  # what it follows brings the rest
