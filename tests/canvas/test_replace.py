"""Tasks that others take the place of: whoever waits for them, or follows them, sees no difference."""

from __future__ import annotations

import asyncio

import pytest
from canvas.composing import s, si, written
from canvas.test_following import send, value
from celery import chain, chord, group
from celery.canvas import Signature

from aioretryq import ChordError, ConfigError, Task, Worker
from aioretryq.errors import Replaced
from aioretryq.protocol.signature import read_signature
from queues import soon, until

INSTEAD = {
    "a call": (lambda x: s("add", x, 1), 1),
    "a call that has an id": (lambda x: s("add", x, 1, task_id=f"own {x}"), 1),
    "a call that retries": (lambda x: s("flaky", x), 0),
    "a function": (lambda x: chain(group([s("add", x)]), s("add", 1)), 1),
    "a chain": (lambda x: s("add", x, 1) | s("add", 1) | s("add", 1), 3),
    "a chain of chains": (lambda x: chain(chain(s("add", x, 1), s("add", 1)), chain(s("add", 1), s("add", 1))), 4),
    "a chord": (lambda x: chord([s("add", x), s("add", 1)], s("total")), 1),
    "a chord whose body is a chain": (lambda x: chord([s("add", x), s("add", 1)], s("total") | s("add", 1)), 2),
    "a chord with an empty header": (lambda x: chord([], chain(s("total"), s("add", x))), 0),
    "a chain with a chord in it": (lambda x: s("add", x) | group(s("add", 0), s("add", 1)) | s("first"), 0),
    "a chord in a chord": (
        lambda x: chord([chord([s("add", x), s("add", 1)], s("total")), s("add", 1)], s("total")),
        2,
    ),
    "what is replaced itself": (lambda x: s("instead", x, "a chord"), 1),
    "what is replaced twice": (lambda x: s("instead", x, "what is replaced itself") | s("add", 1), 2),
}
"""Ways of adding a number to another one."""

GROUPS = {
    "a group": (lambda x: group(s("add", x), s("add", 1)), lambda x: [x, 1]),
    "a group of one": (lambda x: group([s("add", x)]), lambda x: [x]),
    "an empty group": (lambda x: group(), lambda x: []),
    "a group of groups and chains": (
        lambda x: group(group(s("add", x), s("add", 1)), s("add", 1) | s("add", 1)),
        lambda x: [x, 1, 2],
    ),
    "a chain that ends in a group": (
        lambda x: s("add", x) | group(s("add", 1), s("add", 2)),
        lambda x: [x + 1, x + 2],
    ),
    "a chord whose body is a group": (
        lambda x: chord([s("add", x), s("add", 1)], group(s("total"), s("echo"))),
        lambda x: [x + 1, [x, 1]],
    ),
}

PLACES = {
    "alone": (lambda name: s("instead", 5, name), lambda v: v(5)),
    "first of a chain": (lambda name: s("instead", 5, name) | s("add", 10) | s("add", 10), lambda v: v(5) + 20),
    "in the middle": (lambda name: s("add", 4, 1) | s("instead", name) | s("add", 10), lambda v: v(5) + 10),
    "last of a chain": (lambda name: s("add", 4, 1) | s("instead", name), lambda v: v(5)),
    "before a group": (
        lambda name: s("instead", 5, name) | group(s("add", 1), s("add", 2)),
        lambda v: [v(5) + 1, v(5) + 2],
    ),
    "before a chord": (
        lambda name: s("instead", 5, name) | group(s("add", 1), s("add", 2)) | s("total"),
        lambda v: 2 * v(5) + 3,
    ),
    "member of a group": (lambda name: group(s("add", 1), s("instead", 5, name)), lambda v: [1, v(5)]),
    "in a header": (
        lambda name: chord([s("instead", 5, name), s("add", 1), s("instead", 6, name)], s("echo")),
        lambda v: [v(5), 1, v(6)],
    ),
    "in a chain in a header": (
        lambda name: chord([s("add", 4, 1) | s("instead", name) | s("add", 1), s("add", 1)], s("echo")),
        lambda v: [v(5) + 1, 1],
    ),
    "last of a chain in a header": (
        lambda name: chord([s("add", 4, 1) | s("instead", name), s("add", 1)], s("echo")),
        lambda v: [v(5), 1],
    ),
    "body": (
        lambda name: chain(group(s("add", 2), s("add", 3)), s("total"), s("instead", name), s("add", 1)),
        lambda v: v(5) + 1,
    ),
    "body of a chord": (lambda name: chord([s("add", 5)], s("instead_total", name)), lambda v: v(5)),
    "in a group as a body": (
        lambda name: chord([s("add", 5)], group(s("instead_total", name), s("total"))),
        lambda v: [v(5), 5],
    ),
}


def with_lists(name: str) -> bool:
    """Whether nobody calculates with the value."""
    return name not in (
        "first of a chain",
        "in the middle",
        "in a chain in a header",
        "before a group",
        "before a chord",
        "body",
    )


@pytest.fixture(autouse=True)
def instead(queue):
    @queue.task(name="w.instead", bind=True)
    async def instead(self, x, name):
        return self.replace(written({**INSTEAD, **GROUPS}[name][0](x)))

    @queue.task(name="w.instead_total", bind=True)
    def instead_total(self, numbers, name):
        """In a thread."""
        return self.replace(written({**INSTEAD, **GROUPS}[name][0](sum(numbers))))

    @queue.task(name="w.first")
    async def first(numbers):
        return numbers[0]


def replaced(signature: Signature) -> Replaced:
    return Replaced(read_signature(written(signature)))


@pytest.mark.parametrize("place", PLACES)
async def test_every_kind_at_every_place(queue, worker, place):
    compose, expected = PLACES[place]
    kinds = {name: lambda x, more=more: x + more for name, (_, more) in INSTEAD.items()}
    if with_lists(place):
        kinds |= {name: of for name, (_, of) in GROUPS.items()}
    handles = {name: await send(queue, compose(name)) for name in kinds}
    values = {name: await value(queue, handle) for name, handle in handles.items()}
    assert values == {name: expected(of) for name, of in kinds.items()}


async def test_links_move_to_its_end(queue, worker, calls):
    """Once each, whatever takes the place."""
    for name, (_, more) in INSTEAD.items():
        calls.clear()
        call = s("instead", 5, name)
        call.link(s("note", "linked"))
        await send(queue, call | s("note", "next"))
        await until(lambda: len(calls) == 2)
        assert sorted(calls) == [("note", 5 + more, "linked"), ("note", 5 + more, "next")]


async def test_it_may_have_links_of_its_own(queue, worker, calls):
    @queue.task(name="w.with_links")
    async def with_links(*args):
        made = chain(s("add", 1, 1), s("add", 1))
        made.link(s("note", "of the chain"))
        raise replaced(made)

    call = s("with_links")
    call.link(s("note", "of the task"))
    await send(queue, call)
    await until(lambda: len(calls) == 2)
    assert sorted(calls) == [("note", 3, "of the chain"), ("note", 3, "of the task")]


BAD = {
    "a call": lambda: s("fail"),
    "first of a chain": lambda: s("fail") | s("add", 1),
    "last of a chain": lambda: s("add", 1) | s("fail"),
    "in a header": lambda: chord([s("add", 1), s("fail")], s("total")),
    "a body": lambda: chord([s("add", 1), s("add", 1)], s("fail")),
    "a member of a group": lambda: group(s("fail"), s("add", 1)),
    "in the middle, a group after it": lambda: s("fail") | group(s("add", 1), s("add", 2)),
}


@pytest.fixture
def bad(queue):
    @queue.task(name="w.bad")
    async def bad(name, *args):
        raise replaced(BAD[name]())


@pytest.mark.parametrize("name", BAD)
async def test_its_failure_is_that_of_the_task(queue, worker, calls, bad, name):
    call = s("bad", name, task_id="R", link_error=[written(s("told_id"))])
    await send(queue, chord([chain(call, s("note", task_id="N")), s("add", 1)], s("note", task_id="B")))
    async with asyncio.timeout(20):
        for task_id in "RN":
            with pytest.raises((ValueError, ChordError), match="broken"):
                await queue.AsyncResult(task_id).get()
        with pytest.raises(ChordError, match="Dependency N raised"):
            await queue.AsyncResult("B").get()
    await until(lambda: bool(calls))
    assert len(calls) == 1, "one of its calls has failed, so they are called once"
    assert calls[0][0] == "told_id"


async def test_the_header_is_told_of_where_that_is_asked_for(queue, calls, bad):
    queue.conf.task_allow_error_cb_on_chord_header = True
    async with Worker(queue).running():
        await send(queue, s("bad", "in a header", task_id="R", link_error=[written(si("note", "told"))]))
        with pytest.raises(ChordError, match="broken"):
            await soon(queue.AsyncResult("R").get())
        await until(lambda: len(calls) == 2)
    assert calls == [("note", "told")] * 2, "one for the part, one for the body"


async def test_nothing_is_stored_until_it_is_done(queue, worker):
    let_go = asyncio.Event()
    seen = []

    @queue.task(name="w.wait", bind=True)
    async def wait(self, *args):
        request = self.request
        seen.append((request.id, request.root_id, request.replaced_task_nesting, request.stamps))
        await let_go.wait()
        return "done"

    @queue.task(name="w.twice", bind=True)
    async def twice(self, *args):
        if self.request.replaced_task_nesting == 0:
            raise replaced(s("twice") | s("wait", "second"))
        raise replaced(chain(s("wait", "first")))

    result = await queue.send_task("w.twice", task_id="T", stamped_headers=["who"], stamps={"who": "me"})
    await until(lambda: len(seen) == 1)
    assert await result.status() == "PENDING"
    assert seen[0][0] != "T", "what comes last has its id"
    let_go.set()
    assert await soon(result.get()) == "done"
    assert [found[1:] for found in seen] == [("T", 2, {"who": "me"})] * 2, "what was left of the chain, too"
    assert seen[1][0] == "T"


async def test_what_cannot_take_a_place_fails_the_task(queue, worker):
    @queue.task(name="w.wrong")
    async def wrong(kind):
        match kind:
            case "empty":
                raise replaced(chain())
            case "part":
                raise replaced(s("add", 1, chord=written(s("total"))))
            case "large":
                raise replaced(s("echo", "x" * queue.conf.max_payload_bytes))

    for kind, message in (("empty", "empty chain"), ("part", "part of a chord"), ("large", "too large")):
        result = await queue.send_task("w.wrong", [kind])
        with pytest.raises((ConfigError, Exception), match=message):
            await soon(result.get())
        assert await result.status() == "FAILURE"


async def test_children_that_ignore_their_results_still_count(queue, worker):
    @queue.task(name="w.quiet", ignore_result=True)
    async def quiet(*args):
        raise replaced(s("add", 1, 1))

    handle = await send(queue, chord([s("quiet"), s("quiet")], s("echo")))
    assert await value(queue, handle) == [2, 2]


class Careful(Task):
    """Says so, and takes care of its replacements."""

    seen = ()

    def on_replace(self, sig):
        self.seen = (*self.seen, (sig.task, self.request.id))
        return super().on_replace(sig.set(priority=7) if sig.task == "w.look" else sig)


async def test_a_hook_may_have_a_look(queue, worker):
    @queue.task(name="w.look", bind=True)
    async def look(self):
        return self.request.delivery_info["priority"]

    @queue.task(name="w.careful", bind=True, base=Careful)
    def careful(self):
        return self.replace(look.s())

    result = await careful.apply_async(task_id="C")
    assert await soon(result.get()) == 7
    assert careful.seen == (("w.look", "C"),)


async def test_priorities_are_inherited_where_that_is_asked_for(queue):
    queue.conf.task_inherit_parent_priority = True
    seen = []

    @queue.task(name="w.look", bind=True)
    async def look(self, *args):
        seen.append(self.request.delivery_info["priority"])
        return 1

    @queue.task(name="w.looks", bind=True)
    async def looks(self):
        return self.replace(group(s("look"), s("look")) | s("look", priority=2) | s("look"))

    async with Worker(queue).running():
        result = await looks.apply_async(priority=5)
        await soon(result.get())
    assert seen == [5, 5, 2, 2]


async def test_it_is_for_runs_only(queue):
    @queue.task(name="w.lost", bind=True)
    def lost(self):
        return self.replace(written(s("add", 1)))

    with pytest.raises(RuntimeError, match="outside of a run"):
        lost()
