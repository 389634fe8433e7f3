"""Revoking many tasks together, and stopping whole workflows while they run."""

from __future__ import annotations

import asyncio
import logging

import pytest
from canvas.composing import s, si, written
from celery import chain, chord, group

from aioretryq import AsyncResult, GroupResult, TaskQueue, TaskRevokedError, Worker
from aioretryq.ids import new_id
from aioretryq.message import (
    Notice,
    TaskMessage,
    parse_revocation,
    revocation,
    revocation_of_group,
    revocation_of_stamps,
)
from aioretryq.protocol.result import ResultDocument
from aioretryq.protocol.signature import read_signature
from aioretryq.results.many import ManyResults
from aioretryq.worker.revocations import Revocations
from aioretryq.workflows.record import record_key
from aioretryq.workflows.sending import start
from queues import soon, until


@pytest.fixture
async def queue(url):
    async with TaskQueue(url) as queue:
        yield queue


class Tasks:
    """What has begun, what was cancelled, and what came to its end."""

    def __init__(self, queue):
        self.begun, self.cancelled, self.ended = [], [], []

        @queue.task(name="w.long")
        async def long(*args):
            self.begun.append(args[-1])
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.append(args[-1])
                raise

        @queue.task(name="w.short")
        async def short(*args):
            self.ended.append(args[-1])
            return args[-1]

        @queue.task(name="w.sender")
        async def sender(*args):
            child = await long.delay("child")
            self.child = child.id
            return "sent"


@pytest.fixture
def tasks(queue):
    return Tasks(queue)


@pytest.fixture
async def worker(queue, tasks):
    async with Worker(queue, concurrency=20).running() as worker:
        yield worker


async def send(queue, signature):
    found = await start(queue, read_signature(written(signature)))
    assert found is not None
    return found


async def statuses(queue, ids):
    return {document.status for document in await queue.results.get_many(list(ids))}


def put(queue, task_id, **more):
    document = ResultDocument(task_id=task_id, status="SUCCESS", **more)
    return queue.results.store([queue.results.record(document)])


class TestCancelling:
    async def test_a_chain_while_its_first_step_runs(self, queue, tasks, worker):
        last = await send(queue, chain(s("long", 1), s("short", 2), s("short", 3)))
        await until(lambda: tasks.begun == [1])
        await soon(last.cancel())
        with pytest.raises(TaskRevokedError):
            await soon(last.get())
        await until(lambda: tasks.cancelled == [1])
        assert await statuses(queue, last.as_list()) == {"REVOKED"}
        assert tasks.ended == []

    async def test_a_chain_while_its_middle_step_runs(self, queue, tasks, worker):
        last = await send(queue, chain(s("short", 1), s("long", 2), s("short", 3)))
        await until(lambda: tasks.begun == [2])
        await soon(last.cancel())
        await until(lambda: tasks.cancelled == [2])
        assert [await queue.AsyncResult(each).status() for each in last.as_list()] == [
            "REVOKED",
            "REVOKED",
            "SUCCESS",
        ]
        assert tasks.ended == [1]

    async def test_a_chord_while_its_header_runs(self, queue, tasks, worker):
        body = await send(queue, chord([s("long", n) for n in range(4)], s("short", "body")) | s("short", "after"))
        await until(lambda: sorted(tasks.begun) == [0, 1, 2, 3])
        await soon(body.cancel())
        await until(lambda: sorted(tasks.cancelled) == [0, 1, 2, 3])
        header = body.parent.parent
        assert await statuses(queue, header.as_list()) == {"REVOKED"}
        with pytest.raises(TaskRevokedError):
            await soon(body.get())
        # Whose header has failed, fails: not if it was revoked before.
        assert await statuses(queue, [body.id, body.parent.id]) == {"REVOKED"}
        assert tasks.ended == []

    async def test_nobody_is_alarmed(self, queue, tasks, caplog):
        caplog.set_level(logging.INFO, "aioretryq.worker")
        body = s("short", "body").on_error(s("short", "alarm"))
        async with Worker(queue, concurrency=20).running():
            found = await send(queue, chord([s("long", 1), s("long", 2)], body) | s("short", "after"))
            await until(lambda: sorted(tasks.begun) == [1, 2])
            await soon(found.cancel())
            await until(lambda: "is revoked" in caplog.text)
        # Whatever followed from it was sent when the worker had stopped.
        assert await queue.broker.depth(["celery"]) == {"celery": 0}
        assert tasks.ended == []
        assert "has failed" not in caplog.text

    async def test_chains_in_a_group(self, queue, tasks, worker):
        found = await send(queue, group(chain(s("long", n), s("short", n)) for n in range(3)))
        await until(lambda: sorted(tasks.begun) == [0, 1, 2])
        await soon(found.cancel())
        await until(lambda: sorted(tasks.cancelled) == [0, 1, 2])
        assert await statuses(queue, [each for member in found for each in member.as_list()]) == {"REVOKED"}
        assert tasks.ended == []

    async def test_what_a_task_has_sent(self, queue, tasks, worker):
        parent = await send(queue, s("sender"))
        assert await soon(parent.get()) == "sent"
        await until(lambda: tasks.begun == ["child"])
        await soon(parent.cancel())
        await until(lambda: tasks.cancelled == ["child"])
        assert await statuses(queue, [tasks.child]) == {"REVOKED"}
        assert await parent.status() == "SUCCESS"

    async def test_nothing_of_it_runs_on_workers_that_come_later(self, queue, tasks):
        found = await send(queue, chain(s("short", 1), s("short", 2)))
        await found.cancel()
        async with Worker(queue).running():
            await soon((await send(queue, s("short", "other"))).get())
            with pytest.raises(TaskRevokedError):
                await soon(found.get())
        assert tasks.ended == ["other"]

    async def test_by_its_id_alone_with_what_was_recorded_of_it(self, queue, tasks, worker):
        last = await send(queue, chain(s("long", 1), s("short", 2)))
        steps = [{"id": last.parent.id}, {"id": "g", "members": [[{"id": "m"}]]}, {"id": "big", "ids": ["n"]}]
        await queue.results.save_group(record_key(last.id), {"workflow": 1, "steps": [*steps, {"id": last.id}]})
        await until(lambda: tasks.begun == [1])
        await soon(queue.AsyncResult(last.id).cancel())
        await until(lambda: tasks.cancelled == [1])
        assert await statuses(queue, [last.id, last.parent.id, "m", "n"]) == {"REVOKED"}

    async def test_circles_end(self, queue):
        await put(queue, "a", children=[[["b", None], None]])
        await put(queue, "b", children=[[["a", None], None], [["g", None], [[["c", ["d", None]], None]]]])
        await soon(queue.AsyncResult("a").cancel())
        assert await statuses(queue, "cd") == {"REVOKED"}
        assert await statuses(queue, "ab") == {"SUCCESS"}


class TestManyAtOnce:
    async def test_members_of_a_large_group(self, queue, tasks):
        """Workers hear of the group; results say so of each task; what had begun is cancelled."""
        found = await send(queue, group([si("short", n) for n in range(1100)] + [si("long", "runs")]))
        other = await send(queue, group(si("short", "other") for _ in range(3)))
        await found.revoke()
        assert await statuses(queue, found.as_list()) == {"REVOKED"}
        async with Worker(queue).running():
            assert await soon(other.get()) == ["other"] * 3
            with pytest.raises(TaskRevokedError):
                await soon(found.get())
            await until_empty(queue)
        assert tasks.ended == ["other"] * 3
        assert tasks.begun == []

    async def test_what_runs_of_it_is_cancelled(self, queue, tasks, worker):
        found = await send(queue, group([si("long", n) for n in range(1100)]))
        await until(lambda: len(tasks.begun) == 20)
        await soon(found.cancel())
        await until(lambda: sorted(tasks.cancelled) == sorted(tasks.begun))
        await until_empty(queue)
        assert await statuses(queue, found.as_list()) == {"REVOKED"}

    async def test_somebodys_own_list_is_revoked_by_ids(self, queue, tasks):
        sent = await send(queue, group(si("short", n) for n in range(1500)))
        own = GroupResult("own", ManyResults(queue, sent.as_list()), queue)
        await own.revoke()
        async with Worker(queue).running():
            await until_empty(queue)
        assert tasks.ended == []

    async def test_options(self, queue, tasks, worker):
        found = await send(queue, group(si("long", n) for n in range(3)))
        await until(lambda: len(tasks.begun) == 3)
        await soon(found.revoke(terminate=True, signal="SIGKILL", wait=True, timeout=5))
        await until(lambda: len(tasks.cancelled) == 3)

    async def test_by_stamps(self, queue, tasks):
        stamped = si("short", 1).set(stamped_headers=["k"], k="v", stamps={"k": "v"})
        found = await send(queue, stamped)
        await queue.AsyncResult("any").revoke_by_stamped_headers({"k": ["v"]})
        async with Worker(queue).running():
            with pytest.raises(TaskRevokedError):
                await soon(found.get())
        assert tasks.ended == []


async def until_empty(queue):
    async with asyncio.timeout(20):
        while (await queue.broker.depth(["celery"]))["celery"]:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("terminate", [False, True])
def test_notices_say_what_they_are_about(terminate):
    told = {
        revocation("a:b", terminate=terminate): Notice("a:b", terminate=terminate),
        revocation_of_group("g:h", terminate=terminate): Notice(group="g:h", terminate=terminate),
        revocation_of_stamps({"k": ["v"]}, terminate=terminate): Notice(stamps={"k": ["v"]}, terminate=terminate),
    }
    for text, notice in told.items():
        assert parse_revocation(text) == notice


def test_a_worker_forgets_the_oldest_groups():
    found = Revocations(limit=2)
    for group_id in "abc":
        found.add_group(group_id)
    messages = [TaskMessage(id="x", task="t", group=group_id) for group_id in ("a", "b", "c", None)]
    assert [found.unwanted(message) for message in messages] == [False, True, True, False]


async def test_one_with_parents(queue):
    parent = GroupResult("g", ManyResults(queue, [new_id() for _ in range(1500)]), queue)
    last = AsyncResult("last", queue, parent=parent)
    await soon(last.cancel())
    assert await statuses(queue, [*last.as_list()]) == {"REVOKED"}
