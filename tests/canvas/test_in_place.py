"""Workflows in place: `await signature.apply()`, and `task_always_eager`."""

from __future__ import annotations

import re
from itertools import pairwise
from types import SimpleNamespace

import celery
import pytest
from canvas import tree_tasks
from canvas.conftest import define
from canvas.trees import Chain, Chord, Group, built, drawn, parts

from aioretryq import (
    ChordError,
    EagerResult,
    EncodeError,
    GroupResult,
    Ignore,
    NotRegistered,
    Reject,
    TaskQueue,
    Worker,
)
from aioretryq.canvas import chain, chord, group
from aioretryq.drawing.pictures import mermaid, tree_of_result
from queues import memory_url, soon, until


@pytest.fixture
def queue(calls):
    queue = TaskQueue(memory_url())
    define(queue, calls)
    return queue


@pytest.fixture
def w(queue):
    """The tasks by their short names."""
    return SimpleNamespace(**{name.removeprefix("w."): task for name, task in queue.tasks.items()})


async def value(signature, *args):
    return await (await soon(signature.apply(args))).get()


# -- the same expression, here and in Celery


def celerys():
    app = celery.Celery("eager", set_as_current=False, broker="memory://", backend="cache+memory://")

    @app.task(name="w.add")
    def add(x, y=0):
        return x + y

    @app.task(name="w.total")
    def total(numbers):
        return sum(numbers)

    @app.task(name="w.echo")
    def echo(*args):
        return args[0] if len(args) == 1 else list(args)

    @app.task(name="w.flaky", bind=True, max_retries=3)
    def flaky(self, value, failures=2):
        if self.request.retries < failures:
            raise self.retry(exc=OSError("not yet"), countdown=0)
        return value

    kinds = {"chain": celery.chain, "group": celery.group, "chord": celery.chord}
    return SimpleNamespace(add=add, total=total, echo=echo, flaky=flaky, **kinds)


SAME = {
    "call": (lambda c: c.add.s(1, 2), 3),
    "retried": (lambda c: c.flaky.s(5), 5),
    "chain": (lambda c: c.chain(c.add.s(1, 2), c.add.s(3), c.add.s(y=4)), 10),
    "pipe": (lambda c: c.add.s(1, 2) | c.add.s(3), 6),
    "immutable step": (lambda c: c.chain(c.add.s(1, 2), c.add.si(3, 4)), 7),
    "chain in chain": (lambda c: c.chain(c.add.s(1), c.chain(c.add.s(2), c.add.s(3))), 6),
    "retried step": (lambda c: c.chain(c.flaky.s(5), c.add.s(1)), 6),
    "group": (lambda c: c.group(c.add.s(1, 2), c.add.s(3, 4)), [3, 7]),
    "group of chains": (lambda c: c.group(c.add.s(1) | c.add.s(2), c.add.s(3)), [3, 3]),
    "group in group": (lambda c: c.group(c.add.s(1), c.group(c.add.s(2), c.add.s(3))), [1, 2, 3]),
    "chord": (lambda c: c.chord([c.add.s(1), c.add.s(2)], c.total.s()), 3),
    "chord of retried": (lambda c: c.chord([c.flaky.s(1), c.add.s(2)], c.total.s()), 3),
    "chord by pipe": (lambda c: c.group(c.add.s(1), c.add.s(2)) | c.total.s(), 3),
    "chord in the middle": (lambda c: c.chain(c.add.s(1), c.group(c.add.s(1), c.add.s(2)), c.total.s()), 5),
    "chord, then": (lambda c: c.group(c.add.s(1), c.add.s(2)) | c.total.s() | c.add.s(10), 13),
    "chord of chains": (lambda c: c.chord([c.add.s(1) | c.add.s(2), c.add.s(3)], c.total.s()), 6),
    "chord in header": (lambda c: c.chord([c.chord([c.add.s(1)], c.total.s()), c.add.s(3)], c.total.s()), 4),
    "chord in body": (lambda c: c.chord([c.add.s(1), c.add.s(2)], c.total.s() | c.add.s(5)), 8),
    "body is a group": (lambda c: c.chord([c.add.s(1), c.add.s(2)], c.group(c.total.s(), c.echo.s())), [3, [1, 2]]),
    "chain ends in a group": (lambda c: c.chain(c.add.s(1), c.group(c.add.s(1), c.add.s(2))), [2, 3]),
    "group after group": (
        lambda c: c.chain(c.group(c.add.s(1), c.add.s(2)), c.group(c.total.s(), c.echo.s())),
        [3, [1, 2]],
    ),
    "map": (lambda c: c.total.map([[1, 2], [3]]), [3, 3]),
    "starmap": (lambda c: c.add.starmap([[1, 2], [3, 4]]), [3, 7]),
    "map, then": (lambda c: c.total.map([[1, 2], [3]]) | c.total.s(), 6),
}


@pytest.mark.parametrize("name", SAME)
async def test_values_are_those_of_celery(queue, w, name):
    expression, expected = SAME[name]
    ours = SimpleNamespace(chain=chain, group=group, chord=chord, **vars(w))
    assert await value(expression(ours)) == expected
    theirs = expression(celerys()).apply().get()
    assert theirs == expected


# -- random ones, against what workers make of them


class Ours:
    def __init__(self, queue):
        self.queue = queue

    def signature(self, name, args, kwargs, immutable):
        return self.queue.tasks[name].signature(args, kwargs, immutable=immutable)

    def link(self, signature, callback):
        return signature.link(callback)

    def link_error(self, signature, errback):
        return signature.link_error(errback)

    def chain(self, *steps):
        return chain(*steps)

    def group(self, members):
        return group(members)

    def chord(self, header, body):
        return chord(header, body)


ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def came_to_an_end(result):
    if isinstance(result, GroupResult):
        return all([await came_to_an_end(member) for member in result.results])
    return result is None or await result.ready()


async def came_of(result):
    if isinstance(result, GroupResult):
        return [await came_of(member) for member in result.results]
    if result is None:
        return None
    found = await result.get(propagate=False, follow_parents=False)
    return ID.sub("<id>", repr(found))


def is_a_race(tree):
    """After a group that is a body, a call is made for each member, as in Celery: one is the first."""
    chains = [part.steps for part in parts(tree) if isinstance(part, Chain)]
    two = [pair for steps in chains for pair in pairwise(steps[:-1])]
    after_groups = any(isinstance(first, Group) and isinstance(second, Group) for first, second in two)
    return after_groups or any(ends_with_a_group(step) for steps in chains for step in steps[:-1])


def ends_with_a_group(step):
    if isinstance(step, Chord):
        return isinstance(step.body, Group) or ends_with_a_group(step.body)
    return isinstance(step, Chain) and (isinstance(step.steps[-1], Group) or ends_with_a_group(step.steps[-1]))


def queue_of_trees(ran):
    queue = TaskQueue(memory_url())
    tree_tasks.define(queue.task, ran.append)
    return queue


@pytest.mark.parametrize("seed", range(10))
async def test_random_workflows_give_what_workers_make_of_them(seed):
    here, there = [], []
    queue, sent_to = queue_of_trees(here), queue_of_trees(there)
    ours, logged = {}, []
    for number, tree in enumerate(drawn(40, seed)):
        here.clear()
        ended = await soon(built(tree, Ours(queue), str(number)).apply())
        if not is_a_race(tree) and await came_to_an_end(ended):
            ours[number, tree] = await came_of(ended)
            logged += here
    async with sent_to, Worker(sent_to).running():
        sent = {key: await built(key[1], Ours(sent_to), str(key[0])).delay() for key in ours}
        theirs = {key: await soon(came_of(result)) for key, result in sent.items()}
        await until(lambda: len(there) >= len(logged))
    assert len(ours) > 25
    for (_, tree), one in ours.items():
        assert one == theirs[_, tree], tree
    assert sorted(logged) == sorted(there)


# -- results


async def test_results_are_those_that_a_sender_would_have(w):
    result = await (group(w.add.s(1), w.add.s(2)) | w.total.s() | w.add.s(10)).apply()
    assert isinstance(result, EagerResult)
    assert await result.status() == "SUCCESS"
    assert await result == 13
    total = result.parent
    header = total.parent
    assert await total.get() == 3
    assert isinstance(header, GroupResult)
    assert await header.get() == [1, 2]
    assert await header.ready()
    assert await header.successful()
    assert not await header.failed()
    assert await header.completed_count() == 2
    assert [await each.get() async for each in header.as_completed()] == [1, 2]
    assert header.parent is None
    assert [each.id for each in await total.children()] == [result.id]
    assert "3" not in mermaid(await tree_of_result(result)).replace("n3", "")


async def test_a_task_that_sends_nothing_has_no_children(w):
    result = await w.add.s(1, 2).apply()
    assert await result.children() == []
    assert result.parent is None


async def test_arguments_come_before_those_of_the_first(w):
    assert await value(w.add.s(2) | w.echo.s("b"), 1) == [3, "b"]
    assert await value(group(w.echo.s("a"), w.echo.s("b")), 1) == [[1, "a"], [1, "b"]]


async def test_an_empty_workflow(w):
    assert await chain().apply() is None
    assert await value(group()) == []
    assert await value(chord([], w.echo.s())) == []


async def test_a_long_chain_needs_no_stack(w):
    assert await value(chain([w.add.s(0), *(w.add.s(1) for _ in range(1500))])) == 1500


async def test_a_generator_of_members(w):
    assert await value(chord((w.add.s(number) for number in range(1500)), w.total.s())) == sum(range(1500))


# -- failures


async def test_a_failing_header_fails_its_body_and_what_follows(w, calls):
    workflow = group(w.add.s(1), w.fail.s(), w.note.s("ran")) | w.total.s() | w.add.s(1)
    result = await workflow.apply()
    with pytest.raises(ValueError, match="broken"):
        await result.get()
    with pytest.raises(ChordError, match=r"Dependency .* raised ValueError"):
        await result.get(follow_parents=False)
    assert [type(each) for each in await result.parent.parent.get(propagate=False)] == [int, ValueError, str]
    assert calls == [("note", "ran")]


async def test_a_group_as_body_fails_with_what_the_header_has_failed_with(w):
    result = await chord([w.fail.s()], group(w.total.s(), w.echo.s())).apply()
    for member in result.results:
        assert isinstance(await member.get(propagate=False), ValueError)


async def test_a_failing_step_ends_the_chain(w, calls):
    result = await chain(w.add.s(1), w.fail.s(), w.note.s(), group(w.note.s(), w.note.s())).apply()
    with pytest.raises(ValueError, match="broken"):
        await result.get()
    for member in result.results:
        assert isinstance(await member.get(propagate=False, follow_parents=False), ValueError)
    assert calls == []


async def test_throw_raises_at_once(queue, w, calls):
    with pytest.raises(ValueError, match="broken"):
        await chain(w.fail.s(), w.note.s()).apply(throw=True)
    with pytest.raises(ValueError, match="broken"):
        await group(w.fail.s(), w.note.s()).apply(throw=True)
    queue.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="broken"):
        await chord([w.fail.s()], w.note.s()).apply()
    assert calls == []


async def test_ignored_tasks_stop_their_chain(w, calls):
    result = await chain(w.ignore.s(), w.note.s()).apply()
    assert await result.status() == "PENDING"
    body = await chord([w.ignore.s(), w.add.s(1)], w.note.s()).apply()
    assert await body.status() == "PENDING"
    assert calls == []


async def test_rejected_tasks_have_failed(w):
    with pytest.raises(Reject):
        await value(chain(w.reject.s(), w.note.s()))


async def test_an_unknown_task(queue, w):
    with pytest.raises(NotRegistered, match="nowhere"):
        await queue.signature("nowhere").apply()
    with pytest.raises(NotRegistered, match="nowhere"):
        await value(w.add.s(1) | queue.signature("nowhere") | w.add.s(1))


async def test_what_cannot_be_sent_on_fails_the_task(queue, w):
    @queue.task(name="w.odd")
    async def odd():
        return object()

    result = await (odd.s() | w.add.s(1)).apply()
    with pytest.raises(EncodeError, match="cannot be written as JSON"):
        await result


# -- links


async def test_callbacks_get_the_value(w, calls):
    assert await value(w.add.s(1, 2).link(w.note.s("after"))) == 3
    assert calls == [("note", 3, "after")]


async def test_links_of_a_workflow_fire_once_at_its_end(w, calls):
    assert await value((w.add.s(1) | w.add.s(2)).link(w.note.s())) == 3
    assert await value(chord([w.add.s(1)], w.total.s()).link(w.note.s())) == 1
    assert calls == [("note", 3), ("note", 1)]


async def test_errbacks_of_both_kinds_are_told(w, calls):
    result = await w.fail.s().link_error(w.told.s()).link_error(w.told_id.s()).apply()
    assert calls == [("told", result.id, "ValueError", "broken"), ("told_id", result.id)]


async def test_errbacks_of_a_chord_are_told_of_its_body(w, calls):
    result = await chord([w.fail.s(), w.fail.s()], w.total.s().link_error(w.told.s())).apply()
    ((name, task_id, error, _),) = calls
    assert (name, task_id, error) == ("told", result.id, "ChordError")


async def test_links_given_to_apply(w, calls):
    result = await w.add.apply((1, 2), link=w.note.s())
    assert await result.get() == 3
    failed = await w.fail.apply(link_error=[w.told.s()])
    assert calls == [("note", 3), ("told", failed.id, "ValueError", "broken")]
    with pytest.raises(ValueError, match="broken"):
        await w.fail.apply(link_error=w.told.s(), throw=True)


# -- instead of sending


async def test_always_eager(queue, w, calls):
    queue.conf.task_always_eager = True
    assert await (await (w.add.s(1) | w.add.s(2)).delay()) == 3
    assert await (await group(w.add.s(1), w.add.s(2))) == [1, 2]
    assert await (await chord([w.add.s(1), w.add.s(2)])(w.total.s())) == 3
    assert await (await w.add.s(1).apply_async((5,))) == 6
    assert await (await w.add.apply_async((1, 2), link=w.note.s())) == 3
    assert calls == [("note", 3)]


async def test_always_eager_with_chunks(queue, w):
    queue.conf.task_always_eager = True
    result = await w.add.chunks([(number, number) for number in range(5)], 2).apply_async()
    assert await result == [[0, 2], [4, 6], [8]]


async def test_a_task_that_awaits_a_workflow(queue, w):
    queue.conf.task_always_eager = True

    @queue.task(name="w.outer")
    async def outer():
        return await (await (group(w.add.s(1), w.add.s(2)) | w.total.s()))

    assert await value(outer.s() | w.add.s(1)) == 4


# -- replacing and adding


async def test_a_task_that_is_replaced(queue, w, calls):
    @queue.task(name="w.instead", bind=True)
    async def instead(self, kind):
        found = {
            "task": w.add.s(1, 2),
            "chain": w.add.s(1) | w.add.s(2),
            "group": group(w.add.s(1), w.add.s(2)),
            "chord": chord([w.add.s(1), w.add.s(2)], w.total.s()),
            "fail": w.add.s(1) | w.fail.s(),
        }
        return self.replace(found[kind])

    for kind, expected in {"task": 3, "chain": 3, "group": [1, 2], "chord": 3}.items():
        assert await value(instead.s(kind)) == expected
        assert await (await instead.apply((kind,))).get() == expected
        assert await value(instead.s(kind).link(w.note.s()) | w.echo.s("on")) == [expected, "on"]
        assert calls == [("note", expected)]
        calls.clear()
    assert await value(chord([instead.s("task"), instead.s("chain")], w.total.s())) == 6
    with pytest.raises(ValueError, match="broken"):
        await value(instead.s("fail") | w.add.s(1))
    with pytest.raises(ValueError, match="broken"):
        await instead.apply(("fail",), throw=True)


async def test_a_part_that_is_added_to_its_chord(queue, w):
    @queue.task(name="w.more", bind=True)
    async def more(self, number):
        added = await self.add_to_chord(w.add.s(number, 100))
        assert await added.get() == number + 100
        return number

    assert await value(chord([more.s(1), w.add.s(2)], w.echo.s())) == [1, 101, 2]
    with pytest.raises(ValueError, match="no part of a chord"):
        await value(more.s(1))


async def test_a_request_knows_where_it_is(queue, w):
    seen = []

    @queue.task(name="w.look", bind=True)
    async def look(self, *args):
        request = self.request
        seen.append((request.is_eager, request.root_id, request.parent_id, request.group is None))
        raise Ignore

    result = await (w.add.s(1) | look.s()).apply()
    first = result.parent
    assert seen == [(True, first.id, first.id, True)]
