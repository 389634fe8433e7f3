"""Bodies of chords are sent once, or fail once: whoever dies, is cut off, or is refused by a server."""

from __future__ import annotations

import asyncio
import logging

import pytest
import redis
from canvas.composing import s, written
from canvas.conftest import define
from canvas.test_crashes import Death, part_ways, quiet
from canvas.test_rescue import environment, let_time_pass, one_worker, open_by_hand, routes, send_part, sweep
from celery import chord, group
from celery.backends.redis import CHORD_PART_RETURN_LUA

from aioretryq import ChordError, TaskQueue, Worker, states
from aioretryq.errors import BackendUnavailable, BrokerUnavailable
from aioretryq.message import ChordPart, Finish, StoredResult
from aioretryq.protocol import jsontypes
from aioretryq.workflows import rescue
from aioretryq.workflows.sending import send_signature
from queues import soon, until

__all__ = ["environment", "let_time_pass", "routes"]

LATER = ("w.note", "w.told_id", "w.fail", "w.ignored")
LONG = 400.0
"""Seconds after which nothing is known any more of who has sent a body."""


@pytest.fixture
def apart(url):
    """Whether a worker can die between sending a body and closing its chord."""
    return url.startswith("memory:")


@pytest.fixture(autouse=True)
def bodies(routes, queue, calls):
    queue.conf.task_routes = dict.fromkeys(LATER, "later")

    @queue.task(name="w.ignored", ignore_result=True)
    async def ignored(*args):
        calls.append(("ignored", *args))


async def dies(queue, operation, queues=("celery",)):
    async with Death(queue, operation) as death:
        death.victim = asyncio.create_task(Worker(queue, queues=list(queues)).run())
        await soon(death.come.wait())
        await asyncio.wait([death.victim])


def counted(queue, content=5):
    """The last part, whose worker acknowledged early, had the right to send the body, and died."""
    part = ChordPart("G", "t0", 0, jsontypes.dumps([1, "t0", "SUCCESS", content]), "dead", 0.01, 300.0, returns=False)
    return queue.results.backend.count_parts([part])


@pytest.mark.parametrize("part", ["early", "add"])
@pytest.mark.parametrize("body", ["note", "fail", "ignored"])
async def test_whoever_sends_a_body_closes_its_chord(queue, calls, let_time_pass, apart, part, body):
    """There is no moment between the two to die in: nobody has to guess whether it was sent."""
    if apart:
        pytest.skip("one process")
    await send_signature(queue, written(chord([s(part, 1)], s(body, link_error=[written(s("told_id"))]))))
    await dies(queue, "finish")
    await let_time_pass(60)
    assert await sweep(queue) == 0
    async with one_worker(queue):
        await quiet(queue)
        await let_time_pass(60)
        assert await sweep(queue) == 0
        await quiet(queue)
    assert len(calls) == 1


async def test_a_part_that_celery_runs_again_sends_nothing(redis_url):
    """It was counted and its body sent by ours, whose worker died right then."""
    async with TaskQueue(redis_url) as queue:
        define(queue, [])
        queue.conf.task_routes = {"w.note": "later"}
        handle = await send_signature(queue, written(chord([s("add", 1)], s("note"))))
        await dies(queue, "finish")
        assert (await queue.broker.depth(["later"]))["later"] == 1
        key, part = f"celery-taskset-meta-{handle.parent.id}", handle.parent.members[0].id
        with redis.Redis.from_url(redis_url) as server:
            script = server.register_script(CHORD_PART_RETURN_LUA)
            keys = [key + kind for kind in (".j", ".t", ".s", ".d", "", ".c")]
            *_, claimed = script(keys=keys, args=[f"{part}", "r0", "1", 0, 86400, 86400, 10, "theirs"])
        assert not claimed


@pytest.mark.parametrize("joined", [True, False])
async def test_who_was_cut_off_sends_nothing_that_others_have_sent(
    queue, url, calls, let_time_pass, apart, joined, caplog
):
    """Its message was acknowledged early, so somebody else was given the right."""
    if apart:
        pytest.skip("one process")
    back, tried = asyncio.Event(), asyncio.Event()
    async with TaskQueue(url) as other:
        define(other, calls)
        other.conf.task_routes = queue.conf.task_routes
        other.task(name="w.early", acks_late=False)(early)
        if not url.startswith("redis:"):
            other.results.backend._clock = queue.results.backend._clock
        if not joined:
            part_ways(other)
        for name in ("finish", "send"):
            setattr(other.broker, name, cut_off(getattr(other.broker, name), back, tried))
        other.results.backend.hold_chords = cut_off_then(other.results.backend.hold_chords, back, tried)
        handle = await send_signature(queue, written(chord([s("early", 1)], s("note"))))
        async with Worker(other, queues=["celery"]).running():
            await soon(tried.wait())
            await let_time_pass(30)
            assert await sweep(queue) == 1
            async with Worker(queue, queues=["later", rescue.QUEUE]).running():
                assert await soon(queue.AsyncResult(handle.id).get()) == [1]
                back.set()
                with caplog.at_level(logging.WARNING, "aioretryq.worker"):
                    await until(lambda: "is sent by another worker" in caplog.text)
        async with one_worker(queue):
            await quiet(queue)
    assert calls == [("note", [1])]


async def early(value):
    return value


def cut_off(real, back, tried):
    async def operation(batch):
        sent = [out for each in batch for out in (each.send if isinstance(each, Finish) else [each])]
        if not back.is_set() and any(out.queue == "later" for out in sent):
            tried.set()
            raise BrokerUnavailable("cut off")
        return await real(batch)

    return operation


def cut_off_then(real, back, tried):
    async def operation(*args):
        if tried.is_set() and not back.is_set():
            raise BackendUnavailable("cut off")
        return await real(*args)

    return operation


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "STARTED", "REVOKED"])
async def test_any_result_of_the_body_says_that_it_was_sent(queue, calls, let_time_pass, state):
    """By a worker of Celery, which died before it had closed the chord."""
    await open_by_hand(queue, 1, s("note", task_id="B"))
    await counted(queue)
    await queue.results.backend.store([queue_result("B", state)])
    await let_time_pass(60)
    assert await sweep(queue) == 1
    async with one_worker(queue):
        await quiet(queue)
        await let_time_pass(LONG)
        assert await sweep(queue) == 0
    assert calls == []


def queue_result(task_id, state):
    document = b'{"status": "%s", "result": null, "task_id": "%s"}' % (state.encode(), task_id.encode())
    return StoredResult(task_id, state, document, 600.0)


async def test_a_group_that_was_sent_in_part(queue, calls, let_time_pass):
    """The members of which nothing is known are sent, with their ids."""
    queue.conf.task_routes = {}
    members = [s("note", name, task_id=name) for name in ("m1", "m2", "m3")]
    await open_by_hand(queue, 1, group(members))
    await counted(queue)
    async with one_worker(queue):
        assert await soon((await queue.send_task("w.note", [5, "m1"], task_id="m1")).get()) == 5  # was sent
        await let_time_pass(60)
        assert await sweep(queue) == 1
        assert [await soon(queue.AsyncResult(name).get()) for name in ("m2", "m3")] == [[5], [5]]
        await quiet(queue)
    assert calls[0] == ("note", 5, "m1")
    assert sorted(calls[1:]) == [("note", [5], "m2"), ("note", [5], "m3")]


async def test_a_rescuer_dies_before_it_tells_that_a_chord_has_failed(queue, calls, let_time_pass):
    """It has stored that: whoever goes on tells it all the same."""
    body = s("note", task_id="B", link_error=[written(s("told_id"))])
    await open_by_hand(queue, 2, body)
    await let_time_pass(280)
    assert await sweep(queue) == 1
    await dies(queue, "store", ["celery", rescue.QUEUE])
    async with one_worker(queue):
        with pytest.raises(ChordError, match="it was forgotten"):
            await soon(queue.AsyncResult("B").get())
        await until(lambda: bool(calls))
        await quiet(queue)
    assert calls == [("told_id", "B")]


async def test_a_chord_that_the_backend_has_lost(queue, calls):
    """After its last part was counted, and before its body was sent."""
    backend = queue.results.backend
    real = backend.chord_parts

    async def chord_parts(group_id, *limits):
        parts = await real(group_id, *limits)
        await lose(queue, group_id)
        return parts

    backend.chord_parts = chord_parts
    body = s("note", task_id="B", link_error=[written(s("told_id"))])
    await send_signature(queue, written(chord([s("add", 1)], body)))
    async with one_worker(queue):
        with pytest.raises(ChordError, match="has lost what its parts returned"):
            await soon(queue.AsyncResult("B").get())
        await until(lambda: bool(calls))
        await quiet(queue)
    assert calls == [("told_id", "B")]


async def lose(queue, group_id):
    backend = queue.results.backend
    match type(backend).__name__:
        case "RedisBackend":
            with redis.Redis.from_url(queue.broker_url) as server:
                server.delete(*server.keys(f"celery-taskset-meta-{group_id}*"))
        case "SQLiteBackend":
            await backend._database.write(lambda c: c.execute("DELETE FROM chords"))
        case _:
            backend._store.chords._chords.clear()


class TestARefusal:
    """A server takes no message of a body: nobody else would ever say so to whoever waits."""

    @pytest.fixture
    def url(self, redis_url):
        return redis_url

    @pytest.fixture
    def wrong(self, url):
        with redis.Redis.from_url(url) as server:
            server.set("wrong", "no list")

    @pytest.mark.parametrize("part", ["add", "early"])
    @pytest.mark.parametrize("joined", [True, False])
    async def test_of_the_body(self, queue, calls, wrong, part, joined):
        if not joined:
            part_ways(queue)
        body = s("note", task_id="B", queue="wrong", link_error=[written(s("told_id"))])
        handle = await send_signature(queue, written(chord([s("add", 1), s(part, 2)], body)))
        async with one_worker(queue):
            with pytest.raises(ChordError, match="Callback error"):
                await soon(queue.AsyncResult("B").get())
            assert [await soon(queue.AsyncResult(each.id).get()) for each in handle.parent.members] == [1, 2]
            await until(lambda: bool(calls))
            await quiet(queue)
        assert calls == [("told_id", "B")]
        assert await queue.broker.dead_count() == 0

    async def test_of_its_errbacks_too(self, queue, wrong):
        body = s("note", task_id="B", queue="wrong", link_error=[written(s("told_id", queue="wrong"))])
        await send_signature(queue, written(chord([s("add", 1)], body)))
        async with one_worker(queue):
            with pytest.raises(ChordError, match="Callback error"):
                await soon(queue.AsyncResult("B").get())
            await quiet(queue)

    async def test_of_a_part(self, queue, wrong):
        """It goes to the dead letters, for what follows from it cannot be sent; its chord is told."""
        part = s("add", 1, task_id="P")
        part.link(s("note", queue="wrong"))
        await send_signature(queue, written(chord([part, s("add", 2)], s("note", task_id="B"))))
        async with one_worker(queue):
            with pytest.raises(ChordError, match="Dependency P raised"):
                await soon(queue.AsyncResult("B").get())
            await until_dead(queue)

    async def test_of_a_rescue(self, queue, wrong, let_time_pass):
        await open_by_hand(queue, 1, s("note", task_id="B", queue="wrong"))
        await counted(queue)
        await let_time_pass(60)
        assert await sweep(queue) == 1
        async with one_worker(queue):
            with pytest.raises(ChordError, match="Callback error"):
                await soon(queue.AsyncResult("B").get())


async def until_dead(queue):
    async with asyncio.timeout(20):
        while not await queue.broker.dead_count():
            await asyncio.sleep(0.01)


async def test_a_body_is_told_once_by_each_process_when_a_part_was_counted(queue, monkeypatch):
    """Not when it was made: that part may have come to nothing."""
    seen, counting = [], queue.results.backend.count_parts
    finishing = queue.broker.finish

    async def count_parts(parts):
        answer = await counting(parts)
        seen.extend(part.body is not None for part in parts)
        return answer

    async def finish(finishes):
        answer = await finishing(finishes)
        for each, done in zip(finishes, answer, strict=True):
            seen.extend(part.body is not None for part in each.parts if done)
        return answer

    queue.results.backend.count_parts, queue.broker.finish = count_parts, finish

    @queue.task(name="w.big")
    async def big():
        return "x" * 5000

    queue.conf.max_payload_bytes = 3000
    body = s("note", task_id="B")
    embedded = written(body.clone().set(group_id="G"))
    options = {"group_id": "G", "chord": embedded}
    async with one_worker(queue):
        first = await queue.send_task(
            "w.big", [], task_id="t0", group_index=0, link=[queue.signature("w.note")], **options
        )
        assert isinstance(await soon(first.get(propagate=False)), Exception)
        await until(lambda: bool(seen))
        assert await soon((await send_part(queue, 1, body)).get()) == 1
        await until(lambda: len(seen) > 1)
    assert seen == [True, False]


class TestTheQueueOfRescues:
    async def test_nothing_of_it_is_anybody_elses(self, queue, let_time_pass):
        queue.conf.task_routes = {rescue.TASK: "elsewhere"}
        await open_by_hand(queue, 1, s("note", task_id="B"))
        await counted(queue)
        await let_time_pass(60)
        assert await sweep(queue) == 1
        depths = await queue.broker.depth(["celery", "later", "elsewhere", rescue.QUEUE])
        assert depths == {"celery": 0, "later": 0, "elsewhere": 0, rescue.QUEUE: 1}

    async def test_a_worker_that_stops_hands_it_back(self, queue, let_time_pass, monkeypatch):
        monkeypatch.setattr("aioretryq.worker.chords.SHORTEST", 0.02)
        await open_by_hand(queue, 1, s("note", task_id="B"))
        await counted(queue)
        await let_time_pass(60)
        assert await sweep(queue) == 1
        worker, claiming, taken = Worker(queue, queues=["celery"]), queue.broker.claim, []

        async def claim(queues, *, limit):
            found = await claiming(queues, limit=limit)
            if rescue.QUEUE in queues and found.deliveries:
                taken.extend(found.deliveries)
                worker.stop()
                await until(lambda: not worker._jobs.accepting)
            return found

        queue.broker.claim = claim
        await soon(worker.run())
        assert len(taken) == 1
        assert await queue.broker.depth([rescue.QUEUE]) == {rescue.QUEUE: 1}

    async def test_a_worker_that_dies_gives_it_back(self, queue, calls, let_time_pass, monkeypatch):
        monkeypatch.setattr("aioretryq.worker.chords.SHORTEST", 0.02)
        await open_by_hand(queue, 1, s("note", task_id="B"))
        await counted(queue)
        await let_time_pass(60)
        assert await sweep(queue) == 1
        await dies(queue, "count_parts")
        async with Worker(queue, queues=["later"]).running(), Worker(queue, queues=["celery"]).running():
            assert await soon(queue.AsyncResult("B").get()) == [5]
            await quiet(queue)
        assert calls == [("note", [5])]


async def test_what_was_revoked_stays_revoked_when_it_never_ran(queue):
    """A chord that fails tells what comes after it: not of what was cancelled meanwhile."""
    await queue.results.backend.store([queue_result("B", states.REVOKED)])
    await send_signature(queue, written(chord([s("fail", task_id="F")], s("note", task_id="B"))))
    queue.conf.task_routes = {}
    async with one_worker(queue):
        with pytest.raises(ValueError, match="broken"):
            await soon(queue.AsyncResult("F").get())
        await quiet(queue)
        assert (await queue.results.get_task_meta("B")).status == states.REVOKED
