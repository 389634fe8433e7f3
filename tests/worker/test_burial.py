"""What ends in the dead letters, with which reason, and what is kept of it; on each broker."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis

from aioretryq import NotRegistered, ProtocolError, Reject, TaskQueue, Worker
from aioretryq.message import Outgoing
from aioretryq.protocol.deadletter import decode_dead_letter
from queues import dead_letters, soon


@pytest.fixture
async def queue(url):
    async with TaskQueue(url, unknown_task_delay=0.01, unknown_task_timeout=0.2, lease=0.5) as queue:
        yield queue
        assert await queue.broker.depth(["celery"]) == {"celery": 0}


async def test_retries_used_up(queue):
    @queue.task(max_retries=2, autoretry_for=(OSError,), default_retry_delay=0, dead_letter=True)
    async def work(number):
        raise OSError("down", number)

    before = time.time()
    async with Worker(queue).running() as worker:
        result = await work.delay(7)
        with pytest.raises(OSError, match="down"):
            await soon(result.get())
        (letter,) = await dead_letters(queue, 1)
    assert (letter.reason, letter.task, letter.task_id) == ("retries exhausted", work.name, result.id)
    assert (letter.attempts, letter.deliveries, letter.worker, letter.queue) == (3, 1, worker.name, "celery")
    assert before <= letter.time <= time.time()
    assert letter.error == "OSError('down', 7)"
    assert "raise OSError" in letter.traceback
    assert [(error["attempt"], error["error"]) for error in letter.errors] == [
        (1, "OSError('down', 7)"),
        (2, "OSError('down', 7)"),
    ]
    assert all(error["worker"] == worker.name and before <= error["time"] for error in letter.errors)


async def test_a_result_that_cannot_be_stored_costs_the_others_nothing(redis_url, caplog):
    """They are settled together: whatever is wrong with one key, nothing is said of the others."""
    queue = TaskQueue(redis_url, result_backend=redis_url)

    @queue.task
    async def work(number):
        return number

    async with queue:
        results = await work.delay_many([(number,) for number in range(100)])
        bad = results[50].task_id
        with redis.Redis.from_url(redis_url) as client:
            client.lpush(f"celery-task-meta-{bad}", "no result")
        async with Worker(queue).running():
            values = [await soon(result.get()) for result in results if result.task_id != bad]
            (letter,) = await dead_letters(queue, 1)
    assert values == [number for number in range(100) if number != 50]
    assert letter.task_id == bad
    assert "lost" not in caplog.text


async def test_a_failure_that_is_not_retried(queue):
    @queue.task(dead_letter=True)
    async def work():
        raise ValueError("never again")

    async with Worker(queue).running():
        result = await work.delay()
        await soon(result.get(propagate=False))
        (letter,) = await dead_letters(queue, 1)
    assert (letter.reason, letter.error, letter.attempts) == ("failed", "ValueError('never again')", 1)


@pytest.mark.parametrize("acks_late", [True, False])
async def test_early_acknowledged_ones_are_kept_too(queue, acks_late):
    @queue.task(dead_letter=True, acks_late=acks_late)
    async def fails():
        raise ValueError

    @queue.task(acks_late=acks_late)
    async def rejects():
        raise Reject("no")

    async with Worker(queue).running():
        for task in (fails, rejects):
            await soon((await task.delay()).get(propagate=False))
        letters = await dead_letters(queue, 2)
    assert [letter.reason for letter in letters] == ["failed", "rejected"]


async def test_failures_are_not_kept_unless_asked_for(queue):
    @queue.task
    async def work():
        raise ValueError

    async with Worker(queue).running():
        await soon((await work.delay()).get(propagate=False))
    assert await queue.broker.dead_count() == 0


async def test_whole_queues_can_ask_for_it(url):
    async with TaskQueue(url, task_dead_letter=("precious",)) as queue:

        @queue.task
        async def work():
            raise ValueError

        async with Worker(queue, queues=["celery", "precious"]).running():
            for name in ("celery", "precious"):
                await soon((await work.apply_async(queue=name)).get(propagate=False))
            (letter,) = await dead_letters(queue, 1)
        assert letter.queue == "precious"


async def test_a_task_that_nobody_knows_is_given_up_after_a_while(queue, caplog):
    result = await queue.send_task("nobody.knows", (1,))
    async with Worker(queue).running():
        with pytest.raises(NotRegistered, match=r"nobody\.knows"):
            await soon(result.get())
        (letter,) = await dead_letters(queue, 1)
    assert (letter.reason, letter.task, letter.task_id, letter.attempts) == (
        "unknown task",
        "nobody.knows",
        result.id,
        0,
    )
    assert 1 < caplog.text.count("is offered again in") < 10, "the pauses between the offers get longer"


async def test_unknown_tasks_that_have_expired_or_were_revoked_are_not_offered(queue):
    expired = await queue.send_task("nobody.knows", expires=-1)
    revoked = await queue.send_task("nobody.knows")
    await revoked.revoke()
    queue.conf.unknown_task_timeout = 3600
    async with Worker(queue).running():
        for result in (expired, revoked):
            await soon(result.get(propagate=False))
            assert await result.status() == "REVOKED"
    assert await queue.broker.dead_count() == 0


async def test_whoever_waits_for_an_undecodable_message_gets_an_answer(queue):
    result = queue.AsyncResult("3f6d5bb8-3c5e-4f0e-8f11-5e1c2a3b4c5d")
    body = (
        b'{"body": "not base64!", "content-type": "application/json", "content-encoding": "utf-8", '
        b'"headers": {"id": "%s", "task": "some.task"}, "properties": {"body_encoding": "base64"}}'
    ) % result.id.encode()
    await queue.broker.send([Outgoing("celery", body, "tag")])
    async with Worker(queue).running():
        with pytest.raises(ProtocolError):
            await soon(result.get())
        (letter,) = await dead_letters(queue, 1)
    assert (letter.reason, letter.task, letter.task_id) == ("undecodable", "some.task", result.id)
    assert letter.payload == body


async def test_many_undecodable_messages_write_few_lines(queue, caplog):
    await queue.broker.send([Outgoing("celery", b"garbage %d" % n, str(n)) for n in range(300)])
    async with Worker(queue).running():
        await dead_letters(queue, 300)
    assert caplog.text.count("Undecodable message") == 10
    assert "290 more: undecodable messages in queue celery went to the dead letters" in caplog.text


async def test_a_crash_between_the_result_and_the_burial(queue):
    """The failure is stored, its worker is gone: the dead letter is not forgotten."""

    @queue.task(dead_letter=True)
    async def work():
        raise ValueError("stored before the crash")

    async with Worker(queue).running():
        result = await work.delay()
        await soon(result.get(propagate=False))
        await dead_letters(queue, 1)
    (first,) = await queue.broker.dead()
    await queue.broker.exhume([(first.id, Outgoing("celery", _payload(first), "again"))])
    claim = await queue.broker.claim(["celery"], limit=1)
    await queue.broker.requeue(claim.deliveries)
    async with Worker(queue).running():
        (letter,) = await dead_letters(queue, 1)
    assert (letter.reason, letter.task_id) == ("failed", result.id)
    assert "stored before the crash" in letter.error


def _payload(entry):
    return decode_dead_letter(entry.content).payload


async def test_dead_letters_are_trimmed(url):
    async with TaskQueue(url) as queue:
        await queue.broker.send([Outgoing("celery", b"garbage %d" % n, str(n)) for n in range(10)])
        async with Worker(queue).running():
            await dead_letters(queue, 10)
        queue.conf.dead_letter_max = 3
        async with Worker(queue).running():
            async with asyncio.timeout(20):
                while await queue.broker.dead_count() != 3:
                    await asyncio.sleep(0.001)
        letters = await dead_letters(queue, 3)
    assert {letter.payload for letter in letters} < {b"garbage %d" % n for n in range(10)}
