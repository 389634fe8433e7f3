"""Chords that nobody works on any more: workers notice, and whoever waits is told what has become of the body."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest
import redis
from canvas.composing import s, written
from canvas.test_crashes import Death, part_ways, quiet, survive
from celery import chord

from aioretryq import ChordError, Worker
from aioretryq.message import ChordAddition, ChordClaim, ChordOpening, ChordPart
from aioretryq.outage import Outage
from aioretryq.protocol import jsontypes
from aioretryq.worker.chords import ChordSweeper
from aioretryq.workflows import rescue
from aioretryq.workflows.sending import send_signature
from contracts.redis_time import let_pass
from contracts.shifted_clock import ShiftedClock
from queues import soon, until

LEASE = 0.2
PATIENCE = 30.0
LIFE = 300.0


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("AIORETRYQ_LEASE", str(LEASE))


@pytest.fixture(autouse=True)
def routes(environment, queue):
    """Whoever dies runs nothing of what it has sent."""
    queue.conf.task_routes = {"w.note": "later", "w.told_id": "later"}
    queue.conf.result_chord_expires = LIFE  # half as long as results

    @queue.task(name="w.early", acks_late=False)
    async def early(value):
        return value


@pytest.fixture
def let_time_pass(queue, url):
    """For what is known of chords."""
    backend, clock = queue.results.backend, ShiftedClock()
    if not url.startswith("redis:"):
        backend._clock = clock

    async def passes(seconds):
        if url.startswith("redis:"):
            await asyncio.to_thread(let_pass, url, seconds)
        else:
            await clock.advance(seconds)

    return passes


def sweeper_of(queue):
    return ChordSweeper(queue, broker_outage=Outage("broker"), backend_outage=Outage("backend"))


async def sweep(queue):
    return await sweeper_of(queue).sweep(PATIENCE)


def one_worker(queue):
    return Worker(queue, queues=["celery", "later", rescue.QUEUE]).running()


async def last_part_dies(queue, let_time_pass, body):
    """It was acknowledged before it ran; its worker dies as soon as it has the right to send the body."""
    handle = await send_signature(queue, written(chord([s("add", 1), s("early", 2)], body)))
    async with Death(queue, "count_parts") as death:
        death.victim = asyncio.create_task(Worker(queue, queues=["celery"], concurrency=1).run())
        await soon(death.come.wait())
        await asyncio.wait([death.victim])
    assert (await queue.broker.depth(["celery"]))["celery"] == 0
    await let_time_pass(1)
    return handle


async def open_by_hand(queue, size, body, **more):
    opening = ChordOpening("G", size, LIFE, jsontypes.dumps(written(body)), **more)
    await queue.results.backend.open_chords([opening])
    return opening


async def send_part(queue, index, body, name="w.add"):
    embedded = written(body.clone().set(group_id="G"))
    return await queue.send_task(name, [index], task_id=f"t{index}", group_id="G", group_index=index, chord=embedded)


async def test_a_last_part_that_does_not_come_back(queue, calls, let_time_pass, caplog):
    handle = await last_part_dies(queue, let_time_pass, s("note", "body"))
    with caplog.at_level(logging.WARNING, "aioretryq.worker"):
        assert await sweep(queue) == 1
    assert re.search(r"Chord \S+ is rescued \(2 of 2 parts have returned, \d+ s after it began\)", caplog.text)
    async with one_worker(queue):
        assert await soon(queue.AsyncResult(handle.id).get()) == [1, 2]
        await quiet(queue)
        await let_time_pass(PATIENCE * 10)
        assert await sweep(queue) == 0
    assert calls == [("note", [1, 2], "body")]


@pytest.mark.parametrize("operation", ["send", "count_parts", "hold_chords", "finish", "close_chords"])
async def test_the_rescuer_dies_too(queue, calls, let_time_pass, operation):
    if operation in ("hold_chords", "close_chords"):
        part_ways(queue)
    handle = await last_part_dies(queue, let_time_pass, s("note"))
    if operation == "send":  # it was told of the chord, and dies before it sends anything
        assert len(await queue.results.backend.overdue_chords(PATIENCE, 10)) == 1
        assert await sweep(queue) == 0
        await let_time_pass(PATIENCE + 1)
        assert await sweep(queue) == 1
        living = one_worker(queue)
    else:
        assert await sweep(queue) == 1
        living = await survive(queue, operation, queues=["celery", rescue.QUEUE])
    async with living:
        assert await soon(queue.AsyncResult(handle.id).get()) == [1, 2]
        await quiet(queue)
        await let_time_pass(PATIENCE * 10)
        assert await sweep(queue) == 0
    assert calls == [("note", [1, 2])]


async def test_many_look_at_once_and_messages_wait_for_long(queue, calls, let_time_pass):
    handle = await last_part_dies(queue, let_time_pass, s("note"))
    assert sorted(await asyncio.gather(*(sweep(queue) for _ in range(5)))) == [0, 0, 0, 0, 1]
    for _ in range(3):
        await let_time_pass(PATIENCE * 2)
        await sweep(queue)
    assert (await queue.broker.depth([rescue.QUEUE]))[rescue.QUEUE] > 1
    async with one_worker(queue), one_worker(queue):
        assert await soon(queue.AsyncResult(handle.id).get()) == [1, 2]
        await quiet(queue)
    assert calls == [("note", [1, 2])]


async def test_the_body_was_sent_by_whoever_died(queue, calls, let_time_pass):
    """Early acknowledged, it could still send the body, but not close the chord any more: in two places."""
    part_ways(queue)
    handle = await send_signature(queue, written(chord([s("early", 1)], s("note"))))
    async with Death(queue, "close_chords") as death:
        worker = Worker(queue, queues=["celery"])
        death.victim = asyncio.create_task(worker.run())
        await soon(death.come.wait())
        await asyncio.wait([death.victim])
    # It died before that was done
    async with one_worker(queue):
        assert await soon(queue.AsyncResult(handle.id).get()) == [1]
        await let_time_pass(PATIENCE)
        await sweep(queue)
        await quiet(queue)
    assert calls == [("note", [1])]


async def test_a_sender_that_dies_before_all_is_sent(queue, calls, let_time_pass, caplog):
    body = s("note", task_id="B", link_error=[written(s("told_id"))])
    await open_by_hand(queue, None, body, sending=5.0)
    parts = [await send_part(queue, index, body) for index in range(2)]
    async with one_worker(queue):
        assert [await soon(part.get()) for part in parts] == [0, 1]
        assert await sweep(queue) == 0
        await let_time_pass(6)
        await sweep(queue)
        with pytest.raises(ChordError, match="its sender died before all parts were sent"):
            await soon(queue.AsyncResult("B").get())
        late = await send_part(queue, 2, body)
        assert await soon(late.get()) == 2
        await until(lambda: bool(calls))
        await quiet(queue)
        await let_time_pass(PATIENCE * 10)
        assert await sweep(queue) == 0
    assert calls == [("told_id", "B")]


async def test_a_slow_sender(queue, calls, let_time_pass):
    """It speaks again while a message is on its way that tells it is dead."""
    body = s("note", task_id="B")
    await open_by_hand(queue, None, body, sending=5.0)
    await send_part(queue, 0, body)
    await let_time_pass(6)
    assert await sweep(queue) == 1
    await queue.results.backend.amend_chords([ChordOpening("G", 2, LIFE)])
    await send_part(queue, 1, body)
    async with one_worker(queue):
        assert await soon(queue.AsyncResult("B").get()) == [0, 1]
        await quiet(queue)
    assert calls == [("note", [0, 1])]


async def test_the_size_comes_when_all_parts_are_there(queue, calls, let_time_pass):
    body = s("note", task_id="B")
    await open_by_hand(queue, None, body, sending=60.0)
    parts = [await send_part(queue, index, body) for index in range(2)]
    async with one_worker(queue):
        assert [await soon(part.get()) for part in parts] == [0, 1]
        await quiet(queue)
        assert calls == []
        await queue.results.backend.amend_chords([ChordOpening("G", 2, LIFE)])
        await let_time_pass(1)
        await sweep(queue)
        assert await soon(queue.AsyncResult("B").get()) == [0, 1]
        await quiet(queue)
    assert calls == [("note", [0, 1])]


async def test_a_part_that_returns_nothing(queue, calls, let_time_pass):
    """It was ignored, or lost: the body fails before the chord is forgotten."""
    body = s("note", task_id="B", link_error=[written(s("told"))])
    steps = chord([s("add", 1), s("ignore"), s("add", 3)], body)
    await send_signature(queue, written(steps))
    async with one_worker(queue):
        await quiet(queue)
        await let_time_pass(LIFE / 2)
        assert await sweep(queue) == 0
        await let_time_pass(LIFE / 2 - 30)
        assert await sweep(queue) == 1
        with pytest.raises(ChordError, match=r"it was forgotten after \d+ s: 2 of 3 parts had returned"):
            await soon(queue.AsyncResult("B").get())
        await until(lambda: bool(calls))
        await quiet(queue)
    (found,) = calls
    assert found[:3] == ("told", "B", "ChordError")


async def test_a_part_comes_at_the_last_moment(queue, calls, let_time_pass):
    body = s("note", task_id="B")
    await open_by_hand(queue, 1, body)
    await let_time_pass(LIFE - 30)
    assert await sweep(queue) == 1
    await queue.results.backend.count_parts(
        [ChordPart("G", "t0", 0, jsontypes.dumps([1, "t0", "SUCCESS", 0]), "by-t0", 0.01, LIFE, returns=False)]
    )
    await let_time_pass(1)
    async with one_worker(queue):
        await quiet(queue)
        assert calls == [], "it has not expired, and why it is overdue now the next look tells"
        await let_time_pass(PATIENCE * 2)
        assert await sweep(queue) == 1
        assert await soon(queue.AsyncResult("B").get()) == [0]
        await quiet(queue)
    assert calls == [("note", [0])]


async def test_what_waits_behind_the_body_is_told(queue, let_time_pass):
    """Also where the body is a group, or is followed by something."""
    steps = chord([s("ignore")], chord([s("add", task_id="X"), s("add", 1, task_id="Y")], s("total", task_id="Z")))
    await send_signature(queue, written(steps))
    async with one_worker(queue):
        await quiet(queue)
        await let_time_pass(LIFE - 30)
        assert await sweep(queue) == 1
        with pytest.raises(ChordError):
            await soon(queue.AsyncResult("Z").get())


async def test_a_message_that_comes_too_late_does_nothing(queue, calls, let_time_pass):
    body = s("note", task_id="B")
    await open_by_hand(queue, 1, body)
    await queue.results.backend.close_chords([ChordClaim("G", "nobody")])
    for why in ("complete", "unsent", "expired"):
        arguments = {"group_id": "G", "why": why, "reason": "no reason", "body": written(body)}
        await queue.send_task("aioretryq.rescue_chord", [], arguments, task_id=f"rescue {why}")
    await queue.send_task("aioretryq.rescue_chord", [], {"group_id": "G"}, task_id="broken")
    async with one_worker(queue):
        await quiet(queue)
        await send_part(queue, 0, body)
        assert await soon(queue.AsyncResult("B").get()) == [0]
        await quiet(queue)
    assert calls == [("note", [0])]
    kept = await queue.results.backend.fetch(["rescue complete", "rescue unsent", "rescue expired"])
    assert kept == [None] * 3


async def test_rescuers_that_are_killed_again_and_again(queue, calls, let_time_pass):
    """The message is given up, for it may be what kills them. The chord is not: nobody else would send its body."""
    handle = await last_part_dies(queue, let_time_pass, s("note"))
    queue.conf.task_max_deliveries = 1
    assert await sweep(queue) == 1
    async with await survive(queue, "count_parts", queues=["celery", rescue.QUEUE]):
        assert await soon(queue.AsyncResult(handle.id).get()) == [1, 2]
        await quiet(queue)
    assert calls == [("note", [1, 2])]


@pytest.mark.parametrize("body", [b"nonsense", b"[]", b"{}", b'{"task": "w.note", "options": 1}'])
async def test_a_body_that_cannot_be_read(queue, let_time_pass, caplog, body):
    await queue.results.backend.open_chords([ChordOpening("G", None, LIFE, body, 1.0)])
    await let_time_pass(2)
    with caplog.at_level(logging.WARNING, "aioretryq.worker"):
        assert await sweep(queue) == 1
        async with one_worker(queue):
            await quiet(queue)
    assert "Chord G cannot be rescued" in caplog.text or "Chord G has failed" in caplog.text


async def test_added_parts_are_waited_for(queue, calls, let_time_pass):
    body = s("note", task_id="B")
    await open_by_hand(queue, 1, body)
    await queue.results.backend.add_parts([ChordAddition("G", "t1")] * 2)
    await send_part(queue, 0, body)
    async with one_worker(queue):
        await quiet(queue)
        await let_time_pass(200)
        assert await sweep(queue) == 0
        await send_part(queue, 1, body)
        assert await soon(queue.AsyncResult("B").get()) == [0, 1]
        await quiet(queue)
    assert calls == [("note", [0, 1])]


async def test_the_workers_look_by_themselves(queue, calls, let_time_pass, monkeypatch):
    handle = await last_part_dies(queue, let_time_pass, s("note"))
    monkeypatch.setattr("aioretryq.worker.chords.SHORTEST", 0.02)
    async with one_worker(queue), one_worker(queue):
        assert await soon(queue.AsyncResult(handle.id).get()) == [1, 2]
        await quiet(queue)
    assert calls == [("note", [1, 2])]


class TestOthersChords:
    """Opened, and counted, by clients and workers of Celery."""

    @pytest.fixture
    def url(self, redis_url):
        return redis_url

    async def test_a_dispatcher_of_theirs_that_died(self, queue, url, calls, let_time_pass):
        with redis.Redis.from_url(url) as server:
            server.set("celery-taskset-meta-G.s", 2, ex=600)
            body = s("note", task_id="B")
            part = await send_part(queue, 0, body)
            async with one_worker(queue):
                assert await soon(part.get()) == 0
                await quiet(queue)
                # As their script leaves it
                server.zadd("celery-taskset-meta-G.j", {'[1, "t1", "SUCCESS", 1]': 1})
                server.sadd("celery-taskset-meta-G.d", "t1:1")
                server.set("celery-taskset-meta-G.c", "theirs", ex=6)
                await let_time_pass(5)
                assert await sweep(queue) == 0, "it is sending"
                await let_time_pass(30)
                assert await sweep(queue) == 1
                assert await soon(queue.AsyncResult("B").get()) == [0, 1]
                await quiet(queue)
            assert calls == [("note", [0, 1])]
            assert server.get("celery-taskset-meta-G.c") == b"done"
            assert server.zcard("aioretryq.chords") == 0

    async def test_what_they_have_closed_is_forgotten(self, queue, url, let_time_pass):
        with redis.Redis.from_url(url) as server:
            server.set("celery-taskset-meta-G.s", 2, ex=600)
            part = await send_part(queue, 0, s("note", task_id="B"))
            async with one_worker(queue):
                assert await soon(part.get()) == 0
                await quiet(queue)
            assert server.zcard("aioretryq.chords") == 1
            for kind in "tsjd":
                server.delete(f"celery-taskset-meta-G.{kind}")
            server.set("celery-taskset-meta-G.c", "done", ex=300)
            await let_time_pass(20)
            assert await sweep(queue) == 0
            assert server.zcard("aioretryq.chords") == 0
