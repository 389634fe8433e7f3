"""Stamps are told with an extended result, as Celery does."""

from __future__ import annotations

import pytest
from canvas.composing import s, written
from celery import Celery, chord
from celery.app.task import Context

from aioretryq import Worker
from aioretryq.workflows.sending import send_signature
from queues import soon

STAMPED = {"stamped_headers": ["who", "why"], "who": ["me"], "why": ["because"]}
STAMPS = {"who": ["me"], "why": ["because"]}


@pytest.fixture
async def worker(queue):
    queue.conf.result_extended = True
    async with Worker(queue).running() as worker:
        yield worker


async def test_of_tasks_that_ran(queue, worker):
    result = await queue.send_task("w.add", [1], stamped_headers=["who", "why"], stamps=STAMPS)
    assert await soon(result.get()) == 1
    assert await result.stamps() == STAMPS
    assert await result.stamped_headers() == ["who", "why"]
    assert await result.name() == "w.add"


async def test_of_tasks_that_never_ran(queue, worker):
    steps = s("fail", **STAMPED) | s("add", 2, task_id="N", **STAMPED) | s("add", task_id="P")
    await send_signature(queue, written(chord([steps], s("total", task_id="B", **STAMPED))))
    for task_id in "NPB":
        result = queue.AsyncResult(task_id)
        await soon(result.get(propagate=False))
        assert await result.stamps() == ({} if task_id == "P" else STAMPS)
    assert await queue.AsyncResult("N").name() == "w.add"
    assert await queue.AsyncResult("N").args() == [2]


async def test_of_what_has_none_nothing_is_told(queue):
    async with Worker(queue).running():
        result = await queue.send_task("w.add", [1], stamped_headers=["who"], stamps={"who": ["me"]})
        assert await soon(result.get()) == 1
    assert await result.stamps() == {}, "the results are not extended"
    assert await result.stamped_headers() is None


async def test_celery_writes_the_same(queue, worker):
    """A stamp cannot be mistaken for a field of the result."""
    names = ["who", "status", "task_id"]
    ours = await queue.send_task("w.add", [1], stamped_headers=names, stamps={name: ["me"] for name in names})
    assert await soon(ours.get()) == 1
    found = await queue.results.get_task_meta(ours.id)
    assert (found.status, found.task_id) == ("SUCCESS", ours.id)
    with Celery(backend="cache+memory://", set_as_current=False) as app:
        app.conf.result_extended = True
        request = Context(id=ours.id, task="w.add", args=[1], stamped_headers=names[:1], stamps={"who": ["me"]})
        theirs = app.backend._get_result_meta(1, "SUCCESS", None, request)
    assert theirs["who"] == found.extra["who"]
    assert theirs["stamped_headers"] == found.extra["stamped_headers"][:1]
