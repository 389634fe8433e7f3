"""What follows from tasks, on each broker: values, failures, retries, and broken workflows."""

from __future__ import annotations

import asyncio
import time

import pytest
from canvas.composing import app, s, si, written
from canvas.conftest import define
from celery import chain, chord, group
from celery.canvas import xmap, xstarmap

from aioretryq import ChordError, ProtocolError, TaskQueue, TaskRevokedError, Worker
from aioretryq.workflows.promises import Handle
from aioretryq.workflows.sending import send_signature
from queues import dead_letters, memory_url, soon, until


async def send(queue: TaskQueue, signature, *args) -> Handle:
    handle = await send_signature(queue, signature if type(signature) is dict else written(signature), args)
    assert handle is not None
    return handle


async def value(queue: TaskQueue, handle: Handle):
    if handle.members is not None:
        return [await value(queue, member) for member in handle.members]
    return await soon(queue.AsyncResult(handle.id).get())


COMPOSITIONS = {
    "chain": (s("add", 1, 2) | s("add", 3) | s("add", 4), 10),
    "immutable": (s("add", 1, 2) | si("add", 3, 4), 7),
    "chain of chains": (chain(chain(s("add", 1, 1), s("add", 1)), chain(s("add", 1), s("add", 1))), 5),
    "group": (group(s("add", 1), s("add", 2)), [1, 2]),
    "to a group": (s("add", 1, 1) | group(s("add", 1), s("add", 2)), [3, 4]),
    "through a group": (s("add", 1, 1) | group(s("add", 1), s("add", 2)) | s("total"), 7),
    "chord": (chord([s("add", 1), s("add", 2)], s("total")), 3),
    "chord of one": (chord([s("add", 1)], s("total")), 1),
    "empty header": (chord([], s("total")), 0),
    "body is a chain": (chord([s("add", 1), s("add", 2)], s("total") | s("add", 10)), 13),
    "body is a group": (chord([s("add", 1), s("add", 2)], group(s("total"), s("echo"))), [3, [1, 2]]),
    "body is a chord": (
        chord([s("add", 1), s("add", 2)], chord([s("total"), s("echo")], s("echo"))),
        [3, [1, 2]],
    ),
    "chord in a header": (chord([chord([s("add", 1), s("add", 2)], s("total")), s("add", 3)], s("total")), 6),
    "chain in a header": (chord([s("add", 1) | s("add", 2), s("add", 3)], s("total")), 6),
    "group in a header": (
        chord([s("add", 1) | group(s("add", 2), s("add", 3)), s("add", 4)], s("echo")),
        [[3, 4], 4],
    ),
    "two chords in a row": (
        chain(
            s("add", 1, 1), group(s("add", 1), s("add", 2)), s("total"), group(s("add", 1), s("add", 2)), s("total")
        ),
        17,
    ),
    "groups in a row": (
        chain(group(s("add", 1), s("add", 2)), group(s("total"), s("total")), s("total")),
        6,
    ),
    "retries": (s("flaky", 5) | group(s("flaky"), s("add", 1)) | s("total"), 11),
    "map": (chord([xmap(s("add"), [1, 2]), s("add", 1)], s("echo")), [[1, 2], 1]),
    "starmap": (xstarmap(s("add"), [(1, 2), (3, 4)]), [3, 7]),
    "accumulate": (
        chord([s("add", 1), s("add", 2)], app.signature("celery.accumulate", kwargs={"index": 0})),
        [1, 2],
    ),
    "parts ignore their results": (chord([s("add", 1, ignore_result=True), s("add", 2)], s("total")), 3),
}


async def test_compositions(queue, worker):
    """All at once: they must not get into each other's way."""
    handles = {name: await send(queue, signature) for name, (signature, _) in COMPOSITIONS.items()}
    values = {name: await value(queue, handle) for name, handle in handles.items()}
    assert values == {name: expected for name, (_, expected) in COMPOSITIONS.items()}


async def test_callbacks(queue, worker, calls):
    one = s("add", 1, 2)
    one.link(s("note"))
    two = s("add", 3, 4)
    two.link(s("note", "own"))
    two.link(s("note") | s("note", "end"))
    handles = [await send(queue, one), await send(queue, two)]
    await until(lambda: len(calls) == 4)
    assert sorted(map(str, calls)) == sorted(
        map(str, [("note", 3), ("note", 7, "own"), ("note", 7), ("note", 7, "end")])
    )
    children = await queue.AsyncResult(handles[0].id).children()
    assert len(children) == 1
    assert await soon(children[0].get()) == 3


async def test_relations(queue, worker):
    """Root, parent, group and children are those that Celery would give."""
    seen = {}

    @queue.task(name="w.look", bind=True)
    async def look(self, *args):
        request = self.request
        seen[args[-1]] = (request.id, request.root_id, request.parent_id, request.group, request.group_index)
        return args[-1]

    handle = await send(queue, chain(s("look", "a"), group(s("look", "b"), s("look", "c")), s("look", "d")))
    assert await value(queue, handle) == "d"
    root = seen["a"][0]
    assert {found[1] for found in seen.values()} == {root}
    assert [seen[name][2] for name in "abc"] == [None, root, root]
    assert seen["d"][2] in (seen["b"][0], seen["c"][0])
    gid = seen["b"][3]
    assert (seen["b"][3:], seen["c"][3:], seen["d"][3:]) == ((gid, 0), (gid, 1), (gid, None))
    document = await queue.results.get_task_meta(root)
    assert document.children == [[[gid, None], [[[seen["b"][0], None], None], [[seen["c"][0], None], None]]]]


async def test_routes_and_priorities(url):
    async with TaskQueue(url, task_routes={"w.two": "elsewhere"}, task_inherit_parent_priority=True) as queue:
        seen = []

        async def look(self, *args):
            seen.append(
                (self.name, self.request.delivery_info["routing_key"], self.request.delivery_info["priority"])
            )
            return 1

        for name in ("w.one", "w.two", "w.three"):
            queue.task(name=name, bind=True, priority=9 if name == "w.three" else None)(look)
        async with Worker(queue, queues=["celery", "elsewhere", "own"]).running():
            first = s("one", priority=3)
            await value(queue, await send(queue, chain(first, s("two"), s("three", queue="own"))))
        assert seen == [("w.one", "celery", 3), ("w.two", "elsewhere", 3), ("w.three", "own", 3)]


# -- failures


async def test_the_rest_of_a_chain_fails(queue, worker, calls):
    steps = chain(
        s("fail", task_id="A"), s("note", task_id="B"), group(s("note", task_id="C"), s("note", task_id="D"))
    )
    steps |= s("note", task_id="E")
    await send(queue, steps)
    for task_id in "ABCDE":
        with pytest.raises(ValueError, match="broken"):
            await soon(queue.AsyncResult(task_id).get())
    assert calls == []


async def test_every_bad_end_fails_the_rest(queue, worker, calls):
    for name, state in (("reject", "FAILURE"), ("nowhere", "FAILURE")):
        queue.conf.unknown_task_timeout = queue.conf.unknown_task_delay = 0
        await send(queue, s(name) | s("note", task_id=f"after {name}"))
        result = queue.AsyncResult(f"after {name}")
        await soon(result.get(propagate=False))
        assert await result.status() == state
    sent = await send_signature(queue, written(chord([s("slow", task_id="S"), s("add", 1)], s("note", task_id="N"))))
    await queue.revoke("S", terminate=True)
    with pytest.raises(ChordError, match=r"Dependency S raised TaskRevokedError"):
        await soon(queue.AsyncResult(sent.id).get())
    await send(queue, s("add", 1, expires=-1) | s("note", task_id="late"))
    with pytest.raises(TaskRevokedError):
        await soon(queue.AsyncResult("late").get())
    assert calls == []


async def test_a_chord_with_a_part_that_failed(queue, worker, calls):
    body = s("note", task_id="B", link_error=[written(s("told")), written(s("told_id"))])
    steps = chain(group(s("fail", task_id="F"), s("add", 1)), body, s("note", task_id="C"))
    await send(queue, steps)
    for task_id in "BC":
        with pytest.raises(ChordError, match=r"Dependency F raised ValueError\('broken'\)"):
            await soon(queue.AsyncResult(task_id).get())
    await until(lambda: len(calls) == 2)
    assert set(calls) == {("told", "B", "ChordError", "Dependency F raised ValueError('broken')"), ("told_id", "B")}
    body_failed = await queue.results.get_task_meta("B")
    assert body_failed.children == []
    assert "ChordError: Dependency F raised ValueError('broken')" in (body_failed.traceback or "")


async def test_failures_go_through_nested_chords(queue, worker, calls):
    inner = chord([s("fail", task_id="F"), s("add", 1)], s("total", task_id="I"))
    await send(queue, chord([inner, s("add", 2)], s("note", task_id="O")))
    with pytest.raises(ChordError, match="Dependency F"):
        await soon(queue.AsyncResult("I").get())
    with pytest.raises(ChordError, match="Dependency I"):
        await soon(queue.AsyncResult("O").get())
    failing_chain = chain(s("fail"), s("add", 1), s("add", 1, task_id="L"))
    await send(queue, chord([failing_chain, s("add", 2)], s("note", task_id="P")))
    with pytest.raises(ChordError, match="Dependency L raised ValueError"):
        await soon(queue.AsyncResult("P").get())
    assert calls == []


async def test_members_of_a_group_body_fail_of_what_the_part_failed(queue, worker, calls):
    body = group(s("note", task_id="A", link_error=[written(s("told"))]), s("note") | s("note", task_id="B"))
    await send(queue, chord([s("fail"), s("add", 1)], body))
    for task_id in "AB":
        with pytest.raises(ValueError, match="broken"):
            await soon(queue.AsyncResult(task_id).get())
    assert calls == [("told", "A", "ValueError", "broken")]


async def test_errbacks(queue, worker, calls):
    signature = s("fail", task_id="F")
    for errback in (
        s("told"),
        app.signature("w.told_in_thread", kwargs={"extra": 5}),
        s("told_badly"),
        s("told_id"),
        s("told_id") | s("note"),
    ):
        signature.link_error(errback)
    await send(queue, signature)
    await until(lambda: len(calls) == 6)
    assert set(calls) == {
        ("told", "F", "ValueError", "broken"),
        ("told_in_thread", "F", "ValueError", 5),
        ("told_badly", "F"),
        ("told_id", "F"),
        ("note", None),
    }
    assert await queue.AsyncResult("F").status() == "FAILURE"


async def test_retries_tell_nobody_before_the_end(queue, worker, calls):
    failing_twice = s("flaky", 1)
    failing_twice.link(s("note"))
    failing_twice.link_error(s("told"))
    for_ever = s("flaky", 1, 100, task_id="F")
    for_ever.link(s("note"))
    for_ever.link_error(s("told"))
    assert await value(queue, await send(queue, failing_twice)) == 1
    with pytest.raises(OSError, match="not yet"):
        await value(queue, await send(queue, for_ever))
    await until(lambda: len(calls) == 2)
    assert set(calls) == {("note", 1), ("told", "F", "OSError", "not yet")}


async def test_ignored_tasks_are_no_parts_that_returned(queue, worker, calls):
    await send(queue, chord([s("ignore"), s("add", 1)], s("note")))
    assert await value(queue, await send(queue, s("add", 1, 1))) == 2
    assert calls == []


# -- broken workflows

BROKEN = [
    {"chain": [{"task": 5}]},
    {"chain": [{"task": "w.add", "subtask_type": "chord", "kwargs": {"header": {}}}]},
    {"link": [{"task": "w.add", "options": {"task_id": 7}}]},
    {"link_error": [{"task": "w.add", "kwargs": [1]}]},
    {"chord": {"task": "w.add", "args": "x"}, "group_id": "G"},
]


async def sent_unread(queue, name, *args, **options):
    """As other senders do, which do not look what follows."""
    handle = await send(queue, {"task": name, "args": list(args), "options": options})
    return queue.AsyncResult(handle.id)


async def test_a_workflow_that_cannot_be_read_is_a_dead_letter_and_a_failure(queue, worker, calls):
    deep = written(s("add"))
    for _ in range(80):
        deep = {**written(group()), "kwargs": {"tasks": [deep]}}
    broken = [*BROKEN, {"chain": [deep]}]
    results = [await sent_unread(queue, "w.note", **options) for options in broken]
    for result in results:
        with pytest.raises(ProtocolError):
            await soon(result.get())
    letters = await dead_letters(queue, len(broken))
    assert {letter.reason for letter in letters} == {"broken workflow"}
    assert calls == [], "it was not run"
    assert await value(queue, await send(queue, s("add", 1, 1))) == 2


async def test_a_broken_step_fails_the_others_that_can_be_read(queue, worker):
    steps = [written(s("note", task_id="last")), {"task": None}]
    result = await sent_unread(queue, "w.add", 1, 1, chain=steps)
    with pytest.raises(ProtocolError):
        await soon(result.get())
    with pytest.raises(ProtocolError):
        await soon(queue.AsyncResult("last").get())


async def test_what_cannot_be_sent_is_a_failure(queue, worker, calls):
    odd = [{"countdown": "soon"}, {"priority": 77}, {"eta": "tomorrow"}, {"serializer": "smoke-signals"}]
    for options in odd:
        step = {**written(s("note")), "options": options}
        with pytest.raises(Exception, match=r"countdown|priority|eta|serializer") as failure:
            await soon((await sent_unread(queue, "w.add", 1, 1, chain=[step])).get())
        assert type(failure.value).__name__ == "ConfigError"

    @queue.task(name="w.grow", ignore_result=True, store_errors_even_if_ignored=True)
    async def grow():
        return "x" * 20_000

    queue.conf.max_payload_bytes = 12_000
    with pytest.raises(Exception, match="too large"):
        await soon((await queue.send_task("w.grow", link=written(s("note")))).get())
    assert calls == []


async def test_an_unknown_task_in_the_middle_goes_by_the_rules_of_unknown_tasks(queue, worker):
    queue.conf.unknown_task_delay = queue.conf.unknown_task_timeout = 0
    await send(queue, chain(s("add", 1, 1), s("nowhere", task_id="U"), s("add", 1, task_id="L")))
    with pytest.raises(Exception, match=r"w\.nowhere"):
        await soon(queue.AsyncResult("L").get())
    (letter,) = await dead_letters(queue, 1)
    assert (letter.reason, letter.task_id) == ("unknown task", "U")


async def test_chords_need_a_result_backend(calls):
    async with TaskQueue(memory_url(), backend="disabled", task_dead_letter=True) as queue:
        queue.task(name="w.add")(add := lambda x, y=0: x + y)
        assert add(1) == 1
        async with Worker(queue).running():
            await queue.send_task("w.add", [1], link=written(chord([s("add", 1)], s("add", 1))))
            (letter,) = await dead_letters(queue, 1)
        assert "result backend" in letter.error


@pytest.mark.parametrize("where", ["callback", "body"])
async def test_what_follows_may_be_much(where):
    """The event loop does not compute all of it in one go."""
    members = group(si("add", n) for n in range(6000))
    first = chord([s("add", 1)], members) if where == "body" else s("add", 1).set(link=members)
    async with TaskQueue(memory_url()) as queue:
        define(queue, [])
        await send(queue, first)
        busiest = 0.0
        async with Worker(queue, concurrency=1).running():
            while (await queue.broker.depth(["celery"]))["celery"] <= 1:
                before = time.thread_time()
                await asyncio.sleep(0.001)
                busiest = max(busiest, time.thread_time() - before)
        assert busiest < 0.2
