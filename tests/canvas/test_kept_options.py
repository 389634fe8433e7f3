"""What was said of a chain, group or chord stays so when something is put behind it; stamps, ids and times, too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from canvas.planning import calls

from aioretryq import TaskQueue, chain, chord, group
from queues import memory_url, soon


@pytest.fixture
async def local():
    async with TaskQueue(memory_url()) as queue:
        yield queue


def s(queue, name, *args):
    return queue.signature(f"w.{name}", args)


def queues(queue, whole):
    """Of each call, by name, also of those that come after a chord."""
    found, waiting = {}, list(calls(queue.compile(whole)).items())
    for name, options in waiting:
        if isinstance(options, dict):
            found[name[2:]] = options.get("queue", "celery")
            waiting += [(step["task"], step["options"]) for step in options.get("chain") or ()]
        else:
            found[name[2:]] = options.routing_key
    return found


async def test_options_are_those_of_what_they_were_set_on(local):
    a, b, c, d = (s(local, name) for name in "abcd")
    several = group(a, b).set(queue="q")
    for whole in (several | c, chord(several, c), chain(several, c), chain(several, c, queue=None)):
        assert queues(local, whole) == {"a": "q", "b": "q", "c": "celery"}
    both = (a | b).set(queue="q")
    for whole in (both | c, chain(both, c), (both | c) | d, both | (c | d), d | both | c):
        found = queues(local, whole)
        assert (found["a"], found["b"], found["c"], found.get("d", "celery")) == ("q", "q", "celery", "celery")
    assert queues(local, both | (c | d).set(queue="r")) == {"a": "q", "b": "q", "c": "r", "d": "r"}
    assert queues(local, both | group(c, d)) == {"a": "q", "b": "q", "c": "celery", "d": "celery"}
    assert queues(local, d | group(a).set(queue="q")) == {"d": "celery", "a": "q"}
    assert queues(local, (a | group(b, c)).set(queue="q") | d) == {"a": "q", "b": "q", "c": "q", "d": "celery"}
    whole = chord([a], b).set(queue="q")
    for joined in (whole | c, d | whole | c, chain(d, whole, c)):
        found = queues(local, joined)
        assert (found["a"], found["b"], found["c"]) == ("q", "q", "celery")


async def test_their_values_are_the_same(queue, worker):
    add, total = queue.tasks["w.add"], queue.tasks["w.total"]
    several = group(add.s(1, 1), add.s(2, 2)).set(priority=3)
    both = (add.s(1) | add.s(1)).set(priority=3, task_id="whole of it")
    ends = (add.s(1) | group(add.s(1), add.s(2))).set(priority=3).link_error(total.si([]))
    for whole, value in (
        (several | total.s(), 6),
        (both | add.s(5), 7),
        (ends | total.s(), 5),
        (chord(several, total.s()).set(priority=3) | add.s(1), 7),
        (add.s(0) | both | add.s(1), 3),
    ):
        assert await soon((await whole.delay()).get()) == value
    assert await soon(queue.AsyncResult("whole of it").get()) == 2


async def test_what_is_linked_to_them_stays(local):
    a, b, c, e = (s(local, name) for name in "abce")
    whole = (a | b).set(queue="q").link(e).link_error(e) | c
    found = calls(local.compile(whole))
    assert found["w.a"].errbacks[0]["task"] == "w.e"
    assert [found["w.b"][option][0]["task"] for option in ("link", "link_error")] == ["w.e", "w.e"]
    assert not found["w.c"].get("link")


async def test_an_id_of_a_chord_is_that_of_its_result(local):
    a, b, c = (s(local, name) for name in "abc")
    for body in (b, b | c, chord([b], c), group(b, c)):
        whole = chord([a], body)
        for plan in (local.compile(whole.set(task_id="X")), local.compile(whole, task_id="X")):
            assert plan.result.id == "X"
            assert plan.openings[0].group_id != "X"
        assert local.compile(whole.set(task_id="X"), task_id="Y").result.id == "Y"
        assert local.compile(a | whole.set(task_id="X")).result.id == "X"


@pytest.mark.parametrize("given", [timedelta(minutes=1), datetime(2040, 1, 1, tzinfo=UTC), datetime(2040, 1, 1)])
async def test_times_of_steps_links_and_bodies(queue, worker, given):
    @queue.task(name="w.until", bind=True)
    async def until(self, *args):
        return self.request.expires

    echo, later = queue.tasks["w.echo"], until.s().set(expires=given)
    linked = await echo.s(1).link(later.set(task_id="linked")).delay()
    assert await soon(linked.get()) == 1
    for whole in (echo.s(1) | later, chord([echo.s(1)], later), echo.s(1) | group(later, later), later):
        found = await soon((await whole.delay()).get())
        assert all("20" in each for each in ([found] if isinstance(found, str) else found))
    assert "20" in await soon(queue.AsyncResult("linked").get())
    at = datetime.now(UTC) - timedelta(seconds=1)
    assert await soon((await (echo.s(1) | echo.s().set(eta=at))).get()) == 1


async def test_stamps_without_their_names(queue, worker):
    @queue.task(name="w.who", bind=True)
    async def who(self, *args):
        return [sorted(self.request.stamped_headers or ()), self.request.stamps]

    stamps, mine = {"who": "me"}, [["who"], {"who": "me"}]
    for result in (
        await who.s().apply_async(stamps=stamps),
        await who.s().set(stamps=stamps).delay(),
        await who.apply_async((), stamps=stamps),
        await (who.si() | who.si()).apply_async(stamps=stamps),
        await (who.si() | who.si().set(stamps=stamps)).delay(),
        await who.s().apply(stamps=stamps),
    ):
        assert await soon(result.get()) == mine
    both = [["a", "who"], {"a": 1, "who": "me"}]
    for whole in (who.s().stamp(a=1), who.si() | who.si().stamp(a=1)):
        assert await soon((await whole.apply_async(stamps=stamps)).get()) == both
    own = who.s().stamp(who="mine")
    assert await soon((await own.apply_async(stamps=stamps)).get()) == [["who"], {"who": "mine"}]


async def test_a_plan_is_what_would_be_sent(queue):
    add = queue.tasks["w.add"]
    plan = queue.compile(add.chunks([(n, n) for n in range(5)], 2))
    assert [message.task for message in plan.messages] == ["celery.starmap"] * 3
    assert queue.compile(add.s(1), link=add).messages[0].callbacks[0]["task"] == "w.add"
    assert queue.compile(chord([add.s(1)]), kwargs={"body": add.s()}).openings


async def test_retries_in_place_are_not_forgotten_with_a_link(queue):
    @queue.task(name="w.tries", bind=True)
    async def tries(self):
        return self.request.retries

    for more in ({}, {"link": queue.tasks["w.echo"].s()}):
        assert await (await tries.apply(retries=2, **more)).get() == 2
