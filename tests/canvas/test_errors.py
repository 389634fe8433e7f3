"""Whatever fails in a workflow, wherever it is: all who wait are told, and errbacks as often as is documented."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter

import pytest
from canvas.composing import s, si, written
from celery import chain, chord, group

from aioretryq import ChordError, Worker, states
from aioretryq.protocol.signature import read_signature
from aioretryq.workflows.promises import Handle
from aioretryq.workflows.sending import send_signature
from aioretryq.workflows.shapes import link_error
from queues import soon, until

NUMBERS = itertools.count()

KINDS = {
    "raises": lambda: s("fail"),
    "raises what nobody may look at": lambda: s("nasty"),
    "is rejected": lambda: s("reject"),
    "is revoked": lambda: s("echo", task_id=f"revoked {next(NUMBERS)}"),
    "has expired": lambda: s("echo", expires=-1),
    "is unknown": lambda: s("nowhere"),
    "returns what cannot be stored": lambda: s("odd"),
    "returns too much": lambda: s("huge"),
    "takes too long": lambda: s("slow", time_limit=0.01),
    "raises in the end": lambda: s("flaky", 1, 9),
    "is replaced by a call that fails": lambda: s("bad", "a call"),
    "is replaced by a chord that fails": lambda: s("bad", "a header"),
    "is replaced by a group that fails": lambda: s("bad", "a group"),
    "is replaced by what cannot be sent": lambda: s("bad", "too large"),
}
WITHOUT_ERRBACKS = ("is revoked", "has expired")
"""As in Celery: of a task that was not to run, only what waits for it is told."""

PLACES = {
    "alone": (lambda bad: bad(), 1, 0),
    "first of a chain": (lambda bad: bad() | s("add", 1) | s("add", 1), 1, 0),
    "in the middle of a chain": (lambda bad: s("add", 1) | bad() | s("add", 1), 1, 0),
    "last of a chain": (lambda bad: s("add", 1) | s("add", 1) | bad(), 1, 0),
    "before a group": (lambda bad: bad() | group(s("add", 1), s("add", 1) | s("add", 1)), 1, 0),
    "before a chord": (lambda bad: bad() | group(s("add", 1), s("add", 2)) | s("total") | s("add", 1), 1, 0),
    "before nested chords": (
        lambda bad: (
            bad() | group(s("add", 1), s("add", 1) | group(s("add", 1), s("add", 1)) | s("total")) | s("echo")
        ),
        1,
        0,
    ),
    "member of a group": (lambda bad: group(bad(), s("add", 1)), 1, 0),
    "all members": (lambda bad: group(bad(), bad() | s("add", 1)), 2, 0),
    "member after a step": (lambda bad: s("add", 1) | group(bad(), s("add", 1)), 1, 0),
    "in a header": (lambda bad: chord([bad(), s("add", 1)], s("total")), 1, 1),
    "the only part": (lambda bad: chord([bad()], s("total")), 1, 1),
    "all of a header": (lambda bad: chord([bad(), bad(), bad()], s("total")), 1, 1),
    "header after a step": (lambda bad: s("add", 1) | group(bad(), s("add", 1)) | s("total"), 1, 1),
    "header before more": (
        lambda bad: chain(group(bad(), s("add", 1)), s("total"), s("add", 1), group(s("add", 1), s("add", 1))),
        1,
        1,
    ),
    "header before a chord": (
        lambda bad: chain(group(bad(), s("add", 1)), s("total"), group(s("add", 1), s("add", 1)), s("total")),
        1,
        1,
    ),
    "first of a chain in a header": (lambda bad: chord([bad() | s("add", 1), s("add", 1)], s("total")), 1, 1),
    "last of a chain in a header": (lambda bad: chord([s("add", 1) | bad(), s("add", 1)], s("total")), 1, 1),
    "group in a header": (lambda bad: chord([s("add", 1) | group(bad(), s("add", 1)), s("add", 1)], s("echo")), 1, 1),
    "header in a header": (
        lambda bad: chord([chord([bad(), s("add", 1)], s("total")), s("add", 1)], s("total")),
        2,
        2,
    ),
    "body in a header": (lambda bad: chord([chord([s("add", 1)], bad()), s("add", 1)], s("total")), 2, 1),
    "chord in a chain in a header": (
        lambda bad: (
            chord([s("add", 1) | group(bad(), s("add", 1)) | s("total") | s("add", 1), s("add", 1)], s("echo"))
            | s("echo")
        ),
        1,
        1,
    ),
    "body": (lambda bad: chord([s("add", 1), s("add", 1)], bad()), 1, 0),
    "body before more": (lambda bad: chord([s("add", 1), s("add", 1)], bad() | s("add", 1)) | s("add", 1), 1, 0),
    "later than the body": (lambda bad: chord([s("add", 1)], s("total") | bad() | s("add", 1)), 1, 0),
    "in a group as a body": (lambda bad: chord([s("add", 1)], group(bad(), s("total"))), 1, 0),
    "before a group as a body": (
        lambda bad: chord([bad(), s("add", 1)], group(s("total"), s("total") | s("add", 1))),
        2,
        2,
    ),
    "before a chord as a body": (
        lambda bad: chord([bad(), s("add", 1)], chord([s("total"), s("total")], s("total"))),
        1,
        1,
    ),
    "in a chord as a body": (
        lambda bad: chord([s("add", 1)], chord([bad(), s("total")], s("echo") | s("echo"))),
        1,
        1,
    ),
    "chords all the way": (
        lambda bad: chord(
            [chord([s("add", 1), chord([bad(), s("add", 1)], s("total"))], s("echo")), s("add", 1)],
            group(s("echo"), chord([s("echo"), s("echo")], s("echo"))),
        ),
        4,
        4,
    ),
}
"""What fails, how many errbacks are called if it fails, and how many if it was not to run."""


class Nasty(Exception):
    def __str__(self):
        raise TypeError("not even a text")

    __repr__ = __str__


@pytest.fixture(autouse=True)
def more(queue, calls):
    queue.conf.max_payload_bytes = 100_000
    queue.conf.unknown_task_timeout = queue.conf.unknown_task_delay = 0

    @queue.task(name="w.nasty")
    async def nasty(*args):
        raise Nasty(*args)

    @queue.task(name="w.odd")
    async def odd(*args):
        return object()

    @queue.task(name="w.huge")
    async def huge(*args):
        return "x" * 200_000

    @queue.task(name="w.told_of")
    async def told_of(task_id, place):
        calls.append(place)

    @queue.task(name="w.bad", bind=True)
    async def bad(self, how, *args):
        instead = {
            "a call": s("fail"),
            "a header": chord([s("fail"), s("add", 1)], s("total")),
            "a group": s("add", 1) | group(s("add", 1), s("fail")),
            "too large": s("echo", "x" * 200_000),
        }
        return self.replace(written(instead[how]))


def everyone(handle: Handle) -> set[str]:
    """All tasks that somebody could wait for."""
    found = {handle.id} if handle.members is None else set()
    for other in (*(handle.members or ()), *((handle.parent,) if handle.parent else ())):
        found |= everyone(other)
    return found


async def quiet(queue):
    """Until nothing is left to do."""
    async with asyncio.timeout(20):
        while sum((await queue.broker.depth(["celery"])).values()):
            await asyncio.sleep(0.01)
    last = await queue.send_task("w.add", [1])
    assert await soon(last.get()) == 1


async def send_all(queue, kind):
    """What is at every place, with one errback for the whole workflow."""
    sent = {}
    for place, (compose, _, _) in PLACES.items():
        ids: list[str] = []

        def bad(ids=ids):
            made = KINDS[kind]()
            ids += [made.options["task_id"]] if "task_id" in made.options else []
            return made

        signature = compose(bad)
        if kind == "is revoked":
            await queue.control.revoke(ids)
        node = link_error(read_signature(written(signature)), written(s("told_of", place)))
        handle = await send_signature(queue, node)
        assert handle is not None
        sent[place] = handle
    return sent


async def all_end(queue, sent):
    hanging = []
    for place, handle in sent.items():
        for task_id in everyone(handle):
            try:
                async with asyncio.timeout(20 if not hanging else 0.1):
                    await queue.AsyncResult(task_id).get(propagate=False)
            except TimeoutError:
                hanging.append((place, task_id))
    assert not hanging


async def test_nobody_hangs(queue, calls, kind):
    async with Worker(queue, concurrency=100).running():
        sent = await send_all(queue, kind)
        await all_end(queue, sent)
        for place, handle in sent.items():
            ends = {await queue.AsyncResult(task_id).status() for task_id in everyone(handle)}
            assert ends <= states.FINAL, place
            assert ends & states.PROPAGATED, place
        await quiet(queue)
    expected = {place: counts[kind in WITHOUT_ERRBACKS] for place, (_, *counts) in PLACES.items()}
    assert Counter(calls) == Counter(expected)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


# -- what cannot be sent

ODD_OPTIONS = [
    *({name: [5]} for name in "headers shadow exchange routing_key serializer".split()),
    *({name: "x"} for name in "expires eta countdown time_limit soft_time_limit priority compression".split()),
    *({name: "x"} for name in "ignore_result replaced_task_nesting serializer".split()),
    {"headers": 5},
    {"priority": 77},
    {"expires": {}},
    {"link": [{"task": 5}]},
    {"link_error": [{"task": 5}]},
]

LATER = {
    "a step": lambda odd: s("add", 1) | odd | s("add", 1),
    "a body": lambda odd: chord([s("add", 1), s("add", 1)], odd) | s("echo"),
    "a member of a body": lambda odd: chord([s("add", 1), s("add", 1)], group(odd, s("echo"))),
    "a part": lambda odd: chord([s("add", 1) | odd, s("add", 1)], s("echo")) | s("echo"),
    "a callback": lambda odd: chord([s("add", 1, link=[written(odd)]), s("add", 1)], s("echo")),
    "an errback": lambda odd: chord([s("fail", link_error=[written(odd)])], s("echo", link_error=[written(odd)])),
    "a replacement": lambda odd: chord([s("becomes", written(odd)), s("add", 1)], s("echo")),
}


@pytest.mark.parametrize("place", LATER)
async def test_options_that_cannot_be(queue, place):
    """A worker finds out when it is their turn."""

    @queue.task(name="w.becomes", bind=True)
    async def becomes(self, signature):
        return self.replace(signature)

    async with Worker(queue, concurrency=100).running():
        sent = {}
        for options in ODD_OPTIONS:
            sent[str(options)] = await send_signature(queue, written(LATER[place](s("echo", **options))))
        await all_end(queue, sent)


# -- errbacks


async def test_errbacks_that_fail_themselves(queue, calls):
    """One is called here, others are sent: that they fail changes nothing."""
    told = [written(s(name)) for name in ("told_badly", "fail", "nowhere", "reject", "told_id")]
    told += [written(s("fail") | s("add", 1)), written(chord([s("fail")], s("total"))), written(s("bad", "a group"))]
    async with Worker(queue).running():
        sent = chord([s("fail", task_id="F", link_error=told)], s("total", task_id="B", link_error=told))
        handle = await send_signature(queue, written(sent))
        await all_end(queue, {"": handle})
        await until(lambda: len(calls) == 4)
        await quiet(queue)
    assert sorted(calls) == [("told_badly", "B"), ("told_badly", "F"), ("told_id", "B"), ("told_id", "F")]


IN_HEADER = {
    "a part": (lambda: chord([s("fail"), s("add", 1)], s("total")), 2),
    "each part": (lambda: chord([s("fail"), s("fail"), s("add", 1)], s("total")), 3),
    "a chain as a part": (lambda: chord([s("add", 1) | s("fail"), s("add", 1)], s("total")), 2),
    "a chord as a part": (lambda: chord([chord([s("fail")], s("total")), s("add", 1)], s("total")), 3),
    "in a chain": (lambda: chain(s("add", 1), group(s("fail"), s("add", 1)), s("total"), s("add", 1)), 2),
    "a body": (lambda: chord([s("add", 1)], s("fail")), 1),
}


async def test_errbacks_of_a_chord_in_its_header(queue, calls):
    queue.conf.task_allow_error_cb_on_chord_header = True
    async with Worker(queue).running():
        for place, (compose, _) in IN_HEADER.items():
            # Those of a chain in it are a matter of whoever sends the chain.
            node = link_error(read_signature(written(compose())), written(si("note", place)), in_header=True)
            await all_end(queue, {place: await send_signature(queue, node)})
        await quiet(queue)
    expected = {place: count for place, (_, count) in IN_HEADER.items()}
    assert Counter(place for _, place in calls) == Counter(expected)


async def test_with_request_exception_and_traceback(queue, calls):
    """Of a body that was never called as of any other task."""

    @queue.task(name="w.told_all")
    async def told_all(request, exc, traceback):
        calls.append((request.id, request.task, str(exc), "Error: " in traceback))

    told = [written(s("told_all"))]
    async with Worker(queue).running():
        sent = chord([s("fail", task_id="F", link_error=told)], s("total", task_id="B", link_error=told))
        await all_end(queue, {"": await send_signature(queue, written(sent))})
        await until(lambda: len(calls) == 2)
    why = "Dependency F raised ValueError('broken')"
    assert sorted(calls) == [("B", "w.total", why, True), ("F", "w.fail", "broken", True)]


async def test_parts_that_are_retried_keep_their_place(queue, worker):
    header = [s("flaky", 1, 2), s("add", 2) | s("flaky", 1) | s("add", 1), s("add", 4), s("flaky", 5, 1)]
    handle = await send_signature(queue, written(chord(header, s("echo"))))
    assert await soon(queue.AsyncResult(handle.id).get()) == [1, 3, 4, 5]


async def test_a_body_that_fails_does_so_like_any_task(queue, worker, calls):
    body = s("fail", task_id="B", link_error=[written(s("told"))])
    await send_signature(queue, written(chord([s("add", 1)], body) | s("note", task_id="N")))
    for task_id in "BN":
        with pytest.raises(ValueError, match="broken"):
            await soon(queue.AsyncResult(task_id).get())
    await until(lambda: bool(calls))
    assert calls == [("told", "B", "ValueError", "broken")]


async def test_the_body_of_a_failed_chord_says_which_part(queue, worker):
    handle = await send_signature(queue, written(chord([s("add", 1), s("fail", task_id="F")], s("total"))))
    with pytest.raises(ChordError, match=re.escape("Dependency F raised ValueError('broken')")):
        await soon(queue.AsyncResult(handle.id).get())
