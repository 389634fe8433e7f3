"""A chord that is done is not opened again by whoever opened it before: a worker that was frozen meanwhile."""

from __future__ import annotations

from canvas.composing import s, written
from celery import chain, chord

from aioretryq.protocol import envelope
from aioretryq.workflows.sending import send_signature
from queues import soon


def opened(queue):
    """What is opened from now on."""
    backend, found = queue.results.backend, []
    really = backend.open_chords

    async def open_chords(openings):
        found.extend(openings)
        await really(openings)

    backend.open_chords = open_chords
    return found


async def is_open(queue, opening):
    return await queue.results.backend.amend_chords([opening]) == [True]


async def test_by_a_worker(queue, worker):
    found = opened(queue)
    following = written(chain(s("add", 1), chord([s("add", 2), s("add", 3)], s("total"))))
    handle = await send_signature(queue, following)
    assert await soon(queue.AsyncResult(handle.id).get()) == 7
    (opening,) = found
    while await is_open(queue, opening):  # until its body's message is acknowledged
        pass
    await queue.results.backend.open_chords([opening])
    assert not await is_open(queue, opening)


async def test_by_its_sender(queue, worker):
    found = opened(queue)
    handle = await send_signature(queue, written(chord([s("add", 2), s("add", 3)], s("echo"))))
    assert await soon(queue.AsyncResult(handle.id).get()) == [2, 3]
    (opening,) = found
    while await is_open(queue, opening):
        pass
    await queue.results.backend.open_chords([opening])
    assert not await is_open(queue, opening)


async def test_one_that_is_sent_again_is_another_one(queue, worker):
    found = opened(queue)
    for _ in range(2):
        header = [s("add", 2).set(task_id="a"), s("add", 3).set(task_id="b")]
        handle = await send_signature(queue, written(chain(s("add", 1).set(task_id="c"), chord(header, s("total")))))
        assert await soon(queue.AsyncResult(handle.id).get()) == 7
    one, two = found
    assert one.token != two.token != ""


def test_a_publish_that_cannot_be_told():
    assert envelope.publish_tag(b'{"properties": {"delivery_tag": "tag"}}') == "tag"
    assert [envelope.publish_tag(body) for body in (b"", b"{}", b'{"properties": 3}', b"[]")] == [""] * 4
