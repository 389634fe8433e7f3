"""Chords of very many parts, and of large ones."""

from __future__ import annotations

import pytest

from aioretryq import ChordError, chord, group
from aioretryq.worker.bodies import MANY
from queues import soon


def s(queue, name, *args, **options):
    return queue.tasks[f"w.{name}"].s(*args).set(**options)


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "with a group in it"])
async def test_a_thread_reads_what_very_many_returned(queue, worker, nested):
    parts = [s(queue, "add", number) for number in range(MANY + 1)]
    last = s(queue, "echo", 5) | group(s(queue, "add", 1), s(queue, "add", 2))
    result = await chord([*parts, last] if nested else parts, s(queue, "echo")).delay()
    assert await soon(result.get()) == [*range(MANY + 1), *([[6, 7]] if nested else [])]


async def test_a_failure_among_very_many(queue, worker):
    parts = [s(queue, "add", number) for number in range(MANY + 1)]
    result = await chord([*parts, s(queue, "fail", task_id="F")], s(queue, "echo")).delay()
    with pytest.raises(ValueError, match="broken"):
        await soon(result.get())


async def test_a_body_that_no_message_can_hold_fails_at_once(queue, worker):
    """Of what it failed, and what to do: nobody waits for it, nor for what comes after it."""
    parts = [s(queue, "echo", "x" * 10_000) for _ in range(15)]
    workflow = chord(parts, s(queue, "echo", task_id="B")) | s(queue, "echo", task_id="later")
    queue.conf.max_payload_bytes = 100_000
    result = await workflow.delay()
    for waiting in (queue.AsyncResult("B"), result):
        with pytest.raises(ChordError, match="max_payload_bytes is 100,000"):
            await soon(waiting.get())


async def test_parts_that_have_returned_more_than_a_body_can_take(queue, worker):
    """Not all of that is read: no message could hold it."""
    parts = [s(queue, "echo", "x" * 10_000) for _ in range(50)]
    queue.conf.max_payload_bytes = 100_000
    result = await chord(parts, s(queue, "echo", task_id="B")).delay()
    with pytest.raises(ChordError, match="more than 200,000 bytes"):
        await soon(result.get())
