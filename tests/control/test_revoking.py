"""Revocations that last, whoever asked for them, and however the task is known."""

from __future__ import annotations

import asyncio
import threading

import pytest
from control_lab import NODE, golden, running

from aioretryq import TaskQueue, TaskRevokedError, Worker
from aioretryq.message import Outgoing, TaskMessage, parse_revocation, revocation, revocation_of_stamps
from aioretryq.protocol.envelope import mark
from aioretryq.protocol.task import encode_task, format_moment
from aioretryq.revoking import store_revoked
from aioretryq.worker.revocations import Revocations
from queues import soon

REPLIES = golden("control_replies")


def as_celery(lab, method, /, **arguments):
    """A request as a client of Celery sends it: nothing of it is in the broker."""
    return lab.client.control.broadcast(method, arguments, timeout=15)


async def revoked(result, reason="revoked"):
    with pytest.raises(TaskRevokedError, match=reason):
        await soon(result.get())
    assert await result.status() == "REVOKED"


class TestByCelery:
    async def test_a_restarted_worker_honours_it(self, lab):
        first = await lab.worker()
        parked = await lab.client.send_task("lab.add", [1, 2], countdown=0.3)
        await running(lab, parked.id)
        reply = await as_celery(lab, "revoke", task_id=parked.id)
        assert reply == {NODE: {"ok": f"tasks {{{parked.id!r}}} flagged as revoked"}}
        await revoked(parked)
        first.stop()
        second = await lab.worker("w2@lab")
        async with asyncio.timeout(20):
            # It learns of revocations with its first claim.
            while parked.id not in (await lab.client.control.inspect(timeout=15).revoked())[second.name]:
                await asyncio.sleep(0.001)
            while (await lab.client.broker.depth(["celery"]))["celery"]:
                await asyncio.sleep(0.001)
        assert await parked.status() == "REVOKED"

    async def test_a_running_coroutine_is_terminated(self, lab):
        await lab.worker()
        result = await lab.client.send_task("lab.sleep", [60])
        await running(lab, result.id)
        reply = await as_celery(lab, "revoke", task_id=[result.id], terminate=True, signal="SIGTERM")
        assert reply == {NODE: {"ok": f"terminate: {result.id}"}}
        await revoked(result, "terminated")
        assert await as_celery(lab, "terminate", task_id=result.id, signal="KILL") == {
            NODE: {"ok": "terminate: tasks unknown"}
        }

    async def test_a_running_task_goes_on_without_terminate(self, memory_lab):
        await memory_lab.worker()
        result = await memory_lab.client.send_task("lab.sleep", [0.1])
        await running(memory_lab, result.id)
        await as_celery(memory_lab, "revoke", task_id=result.id)
        assert await soon(result.get()) == "slept"

    async def test_several_ids(self, memory_lab):
        await memory_lab.worker()
        parked = [await memory_lab.client.send_task("lab.add", [1, 2], countdown=600) for _ in range(2)]
        ids = [each.id for each in parked]
        await as_celery(memory_lab, "revoke", task_id=ids)
        for each in parked:
            await revoked(each)
        assert (await memory_lab.client.control.inspect().revoked())[NODE] == ids

    async def test_a_thread_runs_on_and_the_reply_says_so(self, memory_lab, caplog):
        started, go = threading.Event(), threading.Event()

        def define(queue):
            @queue.task(name="lab.plain")
            def plain():
                started.set()
                go.wait(20)

        try:
            await memory_lab.worker(define=define)
            result = await memory_lab.client.send_task("lab.plain")
            assert await asyncio.to_thread(started.wait, 15)
            reply = await as_celery(memory_lab, "terminate", task_id=result.id, signal="TERM")
            assert reply == {NODE: {"ok": f"terminate: {result.id} (a plain function: its thread runs on)"}}
            await revoked(result, "terminated")
            assert "its thread runs on" in caplog.text
        finally:
            go.set()


class TestByUs:
    async def test_workers_of_celery_hear_it(self, memory_lab):
        """The request that they get."""
        await memory_lab.worker()
        parked = await memory_lab.client.send_task("lab.add", [1, 2], countdown=600)
        await parked.revoke()
        async with asyncio.timeout(20):
            while parked.id not in (await memory_lab.client.control.inspect().revoked())[NODE]:
                await asyncio.sleep(0.001)
        await revoked(parked)

    async def test_for_chosen_nodes_it_is_written_down_nowhere(self, memory_lab):
        await memory_lab.worker()
        replies = await memory_lab.client.control.revoke("some-id", destination=[NODE], timeout=15)
        assert replies == {NODE: {"ok": "tasks {'some-id'} flagged as revoked"}}
        assert await memory_lab.client.control.revoke("other-id", timeout=15)
        assert (await memory_lab.client.control.inspect().revoked())[NODE] == ["some-id", "other-id"]
        claim = await memory_lab.client.broker.claim(["celery"], limit=0)
        assert [parse_revocation(notice).task_id for notice in claim.revoked] == ["other-id"]

    async def test_wrong_ids(self, memory_lab):
        with pytest.raises(TypeError, match="id of a task"):
            await memory_lab.client.control.revoke(5)


def stamped_message(task_id, stamps, seconds, *, eta=None):
    message = TaskMessage(
        id=task_id, task="lab.sleep", args=[seconds], stamps=stamps, stamped_headers=list(stamps), eta=eta
    )
    return Outgoing("celery", encode_task(message, tag=task_id), task_id)


class TestStamps:
    @pytest.mark.parametrize("headers", [{"customer": ["acme", "other"]}, {"customer": "acme"}, ["customer=acme"]])
    async def test_a_restarted_worker_honours_it(self, lab, headers):
        await lab.worker()
        reply = await as_celery(lab, "revoke_by_stamped_headers", headers=headers)
        assert reply == {NODE: {"ok": f"headers {headers} flagged as revoked, but not terminated"}}
        await lab.worker("w2@lab")
        stamps = {"one": {"customer": "acme"}, "two": {"customer": ["x", "acme"]}, "three": {"customer": "nobody"}}
        await lab.client.broker.send([stamped_message(name, found, 0) for name, found in stamps.items()])
        await revoked(lab.client.AsyncResult("one"))
        await revoked(lab.client.AsyncResult("two"))
        assert await soon(lab.client.AsyncResult("three").get()) == "slept"

    async def test_running_ones_are_terminated(self, memory_lab):
        await memory_lab.worker()
        await memory_lab.client.broker.send(
            [stamped_message("one", {"customer": "acme"}, 60), stamped_message("two", {"customer": "b"}, 0.2)]
        )
        await running(memory_lab, "one")
        replies = await memory_lab.client.control.revoke_by_stamped_headers(
            {"customer": "acme"}, terminate=True, timeout=15
        )
        assert replies == {NODE: {"ok": "headers {'customer': ['acme']} revoked"}}
        await revoked(memory_lab.client.AsyncResult("one"), "terminated")
        assert await soon(memory_lab.client.AsyncResult("two").get()) == "slept"
        again = await memory_lab.client.control.revoke_by_stamped_headers(["a=b"], terminate=True, timeout=15)
        assert again == {NODE: {"ok": "headers {'a': ['b']} were not terminated"}}


class TestMingle:
    async def test_a_worker_that_starts_is_told(self, memory_lab):
        await memory_lab.worker()
        await memory_lab.client.control.revoke(["a", "b"], destination=[NODE], timeout=15)  # written down nowhere
        await memory_lab.worker("w2@lab")
        async with asyncio.timeout(20):
            while (await memory_lab.client.control.inspect().revoked())["w2@lab"] != ["a", "b"]:
                await asyncio.sleep(0.001)

    @pytest.mark.parametrize("known", [["x", "y"], {"x": [1.5, "x"], "y": [2.5, "y"]}, ("x", "y", 5, None)])
    async def test_hello_in_its_new_and_its_old_form(self, memory_lab, known):
        await memory_lab.worker()
        reply = (await as_celery(memory_lab, "hello", from_node="other@lab", revoked=known))[NODE]
        assert reply.keys() == REPLIES["hello"][NODE].keys()
        assert reply["revoked"] == ["x", "y"]
        assert await as_celery(memory_lab, "hello", from_node=NODE, revoked=["z"]) == {NODE: None}
        assert (await memory_lab.client.control.inspect().revoked())[NODE] == ["x", "y"]


async def test_a_task_parked_for_longer_than_revocations_last(lab):
    """Nobody remembers the revocation any more; the result does."""
    await lab.worker()
    from_long_ago = stamped_message("late", {}, 0, eta=format_moment(1.0))
    body = mark(from_long_ago.body, parked=1.0, long=1.0)
    await store_revoked(lab.client, ["late"], terminate=False)
    await lab.client.broker.send([Outgoing("celery", body, "late"), stamped_message("next", {}, 0)])
    assert await soon(lab.client.AsyncResult("next").get()) == "slept"
    async with asyncio.timeout(20):
        while (await lab.client.control.inspect().stats())[NODE]["total"] != {"lab.sleep": 1}:
            await asyncio.sleep(0.001)
    assert await lab.client.AsyncResult("late").status() == "REVOKED"


def test_notices():
    assert parse_revocation(revocation("a:b", terminate=True)).task_id == "a:b"
    found = parse_revocation(revocation_of_stamps({"k": ["v", "w:x"]}, terminate=True))
    assert (found.task_id, found.stamps, found.terminate) == (None, {"k": ["v", "w:x"]}, True)
    for garbage in ("", "x", "drop-stamps:", "drop-stamps:[1]", "terminate-stamps:{", 'drop-stamps:{"a": 1}'):
        assert not parse_revocation(garbage).stamps


def test_the_oldest_are_forgotten_first():
    revocations = Revocations(limit=3)
    for name in "abcd":
        revocations.add(name)
    assert revocations.ids() == ["b", "c", "d"]
    revocations.merge(["e", "f", "g", "h"])
    assert revocations.ids() == ["f", "g", "h"]


async def test_a_worker_in_another_queue_object(url):
    """Revoked before any worker is there: written down."""
    async with TaskQueue(url) as queue:

        @queue.task
        async def work(): ...

        results = [await work.delay() for _ in range(3)]
        await queue.control.revoke([each.id for each in results], reply=False)
        async with Worker(queue).running():
            for each in results:
                await revoked(each)
