"""Signatures as values: what they say of themselves, what they refuse, and that nothing changes one."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import pickle
import tracemalloc
import warnings
from typing import Any

import celery
import pytest
from canvas.both import Celerys, Ours, written
from canvas.both import app as celery_app

from aioretryq import (
    ConfigError,
    EncodeError,
    ProtocolError,
    Signature,
    TaskQueue,
    UnknownSettingError,
    chain,
    chord,
    chunks,
    group,
    signature,
    xmap,
)
from aioretryq.protocol import jsontypes
from queues import memory_url, soon


@pytest.fixture
def tasks():
    queue = TaskQueue(memory_url())

    @queue.task(name="w.add")
    async def add(x, y=0):
        return x + y

    @queue.task(name="w.mul", bind=True)
    async def mul(self, x, y):
        return x * y

    @queue.task(name="w.total")
    async def total(values):
        return sum(values)

    return queue.tasks


@pytest.fixture
def add(tasks):
    return tasks["w.add"]


@pytest.fixture
def mul(tasks):
    return tasks["w.mul"]


@pytest.fixture
def total(tasks):
    return tasks["w.total"]


def test_a_signature_says_what_it_is(add):
    found = add.s(1, y=2).set(task_id="me", queue="slow")
    assert (found.task, found.name, found.args, found.kwargs) == ("w.add", "w.add", (1,), {"y": 2})
    assert (found.id, found.immutable, found.subtask_type) == ("me", False, None)
    assert found.options == {"task_id": "me", "queue": "slow"}
    assert found["options"]["queue"] == "slow"
    assert set(found) == {"task", "args", "kwargs", "options", "subtask_type", "immutable"}
    assert len(found) == 6
    assert dict(found) == found.to_dict()
    assert found.type is add
    assert found.app is add.app
    assert (add.s() | add.s()).subtask_type == "chain"
    assert group(add.s()).task == "celery.group"


def test_a_group_is_as_long_as_in_celery(add):
    assert len(group(add.s(1), add.s(2), add.s(3))) == 3
    assert not group()
    assert group(add.s(1))
    endless = group(add.s(n) for n in itertools.count())
    assert endless
    with pytest.raises(TypeError, match="how many"):
        len(endless)
    assert set(group(add.s(1))) == set(add.s(1))
    assert dict(group()) == group().to_dict()


def test_it_is_shown_as_one_would_write_it(add, mul, total):
    assert repr(add.s(1, 2) | mul.s(3)) == "w.add(1, 2) | w.mul(3)"
    assert repr(group(add.s(1), add.s(2) | mul.s(y=3))) == "group(w.add(1), w.add(2) | w.mul(y=3))"
    assert repr(chord([add.s(1), add.s(2)], total.s())) == "chord([w.add(1), w.add(2)], w.total())"
    assert repr(chord([add.s(1)])) == "chord([w.add(1)], None)"
    assert repr(chain(add.s(1) | add.s(2), priority=1)) == "chain(w.add(1) | w.add(2))"
    assert repr(chain()) == "chain()"
    assert repr(add.map([1, 2])) == "[w.add(x) for x in [1, 2]]"
    assert repr(add.chunks(([n, n] for n in range(3)), 2)) == "[w.add(*x) for x in <members of a generator>]"
    assert repr(group(add.s(n) for n in range(3))) == "group(<members of a generator>)"
    assert repr(group([add.s(n) for n in range(12)])).endswith("w.add(9), ... 2 more)")
    assert len(repr(add.s("x" * 5000))) < 300


def test_it_equals_what_reads_alike_and_has_no_hash(add):
    assert add.s(1, [2, 3]) == add.s(1, [2, 3])
    assert add.s(1) != add.s(2)
    assert add.s(1) != add.si(1, 2)
    assert add.s(1) == celery_app.signature("w.add", (1,))
    assert add.s(1) | add.s(2) == {**(add.s(1) | add.s(2)).to_dict()}
    assert add.s(1) != 1
    with pytest.raises(TypeError, match="unhashable"):
        hash(add.s(1))


def test_nothing_changes_one(add, mul):
    steps = [add.s(1), mul.s(2)]
    whole = chain(steps)
    before = copy.deepcopy(whole.to_dict())
    whole.set(queue="q")
    whole.link(add.s())
    whole.link_error(add.si(1))
    whole.clone((1,), priority=3)
    whole.stamp(who="me")
    assert whole | add.s() != whole
    assert group(whole) | add.s() != whole
    steps.append(add.s())
    assert whole.to_dict() == before
    for theirs in (whole.to_dict(), dict(whole)):
        theirs["options"]["queue"] = "other"
        theirs["kwargs"]["tasks"].clear()
    assert whole.to_dict() == before
    with pytest.raises(TypeError):
        whole.options["queue"] = "other"
    with pytest.raises(AttributeError):
        whole.options = {}
    with pytest.raises(TypeError):
        whole["options"] = {}
    with pytest.raises(AttributeError):
        whole.other = 1


def test_arguments_that_were_given_may_change_later(add):
    values = {"y": 1}
    options = {"queue": "a"}
    found = add.signature((1,), values, **options)
    values["y"] = 2
    assert found.kwargs == {"y": 1}


def test_what_is_joined_shares_nothing(add, mul):
    first, second = add.s(1), mul.s(2)
    both = first | second
    again = both.link(add.s())
    assert "link" not in both.options
    assert "link" not in (both | add.s()).tasks[-1].options
    assert (again | add.s()).tasks[1].options["link"][0]["task"] == "w.add"
    whole = chord([first], second)
    longer = whole | add.s()
    assert whole.body == second
    assert longer.body == second | add.s()


def test_clone_puts_arguments_before_its_own(add, mul, total):
    assert add.s(y=2).clone((5,), {"y": 3}) == add.s(5, y=3)
    assert mul.s(1).clone((5,)) == mul.s(5, 1)
    assert mul.si(1, 2).clone((5,), queue="q") == mul.si(1, 2).set(queue="q")
    assert (mul.s(1) | mul.s(2)).clone((5,)) == mul.s(5, 1) | mul.s(2)
    assert group(mul.s(1), mul.s(2)).clone((5,)) == group(mul.s(5, 1), mul.s(5, 2))
    assert mul.s(1).set(stamped_headers=["who"], who="me").clone(who="you").options["who"] == "me"


def test_links_are_listed(add, mul):
    inner = mul.s(2).link(add.s(3))
    assert [each.task for each in add.s(1).link(inner).link(add.s(4)).flatten_links()] == [
        "w.add",
        "w.mul",
        "w.add",
        "w.add",
    ]


def test_tasks_dictionaries_and_celerys_signatures_are_taken_anywhere(add, mul, total):
    theirs = celery_app.signature("w.mul", (3,))
    plain = mul.s(3).to_dict()
    expected = (add.s(1) | mul.s(3) | add.s()).to_dict()
    assert (add.s(1) | theirs | add.s()).to_dict() == expected
    assert (add.s(1) | plain | add).to_dict() == expected
    assert chain(add.s(1), theirs, add).to_dict() == expected
    assert chain([add.s(1), plain, add.s()]).to_dict() == expected
    assert (theirs | add.s()) == mul.s(3) | add.s()
    assert (plain | add.s()) == mul.s(3) | add.s()
    assert group(theirs, plain, mul.s(3)) == group([mul.s(3)] * 3)
    assert group(theirs) == group(plain) == group(mul.s(3))
    assert chord([theirs, plain], total) == chord([mul.s(3)] * 2, total.s())
    assert chord(theirs, celery_app.signature("w.total")) == chord(mul.s(3), total.s())
    assert add.s(1).link(theirs).link_error(total).options["link"] == [plain]
    assert signature(theirs) == signature(plain) == signature(mul.s(3)) == mul.s(3)
    assert signature("w.mul", (3,)) == mul.s(3)
    nested = {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": [mul.s(3), theirs]}}
    assert signature(nested) == mul.s(3) | mul.s(3)
    assert celery.chain(celery_app.signature("w.add", (1,)), theirs) == add.s(1) | theirs


@pytest.mark.parametrize("value", [3, "w.add", None, [3], object()])
def test_what_is_no_signature_is_refused(add, value):
    for attempt in (
        lambda: add.s() | value,
        lambda: chain(add.s(), value),
        lambda: group(add.s(), value),
        lambda: chord([value], add.s()),
    ):
        with pytest.raises(TypeError):
            attempt()
    if not isinstance(value, list):
        with pytest.raises(TypeError):
            group(value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"task": 3},
        {"task": "w.add", "args": 3},
        {"task": "w.add", "subtask_type": "other"},
        {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": [3]}},
        {"task": "celery.chord", "subtask_type": "chord", "kwargs": {"header": []}},
        {"task": "w.add", "options": {"link": [3]}},
    ],
)
def test_dictionaries_that_are_none_are_refused(value):
    with pytest.raises(ProtocolError):
        Signature.from_dict(value)


def test_cycles_are_refused(add):
    chained: dict[str, Any] = {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": []}}
    chained["kwargs"]["tasks"].append(chained)
    linked: dict[str, Any] = {"task": "w.add", "options": {}}
    linked["options"]["link"] = linked
    circle: dict[str, Any] = {"task": "celery.chord", "subtask_type": "chord", "kwargs": {"header": [linked]}}
    circle["kwargs"]["body"] = circle
    for value in (chained, linked, circle):
        with pytest.raises(ProtocolError):
            Signature.from_dict(value)
        with pytest.raises(ProtocolError):
            add.s() | value
        with pytest.raises(ProtocolError):
            group(value)
    with pytest.raises(ConfigError):
        add.signature(link=linked)


def test_mistakes_are_told_at_once(add, mul):
    with pytest.raises(UnknownSettingError, match="countdown"):
        add.s(1).set(count_down=3)
    with pytest.raises(ConfigError, match="priority"):
        (add.s(1) | add.s(2)).set(priority=11)
    with pytest.raises(ConfigError, match="queue"):
        group(add.s(1), queue=7)
    with pytest.raises(TypeError, match=r"w\.mul"):
        mul.s(1, 2, 3)
    with pytest.raises(TypeError, match=r"w\.mul"):
        mul.s(z=1)
    with pytest.raises(TypeError, match=r"w\.mul"):
        mul.si(1)
    with pytest.raises(ConfigError, match="clone"):
        (add.s(1) | add.s(2)).replace(args=(1,))
    with pytest.raises(ConfigError, match="n=0"):
        add.chunks([], 0)
    with pytest.raises(TypeError, match="without a body"):
        chord([add.s(1)]) | add.s()
    stamped = add.s(1).set(stamped_headers=["who"], who="me")
    assert stamped.set(who="you").options["who"] == "you"
    assert add.signature((1,), stamps={"who": "me"}, stamped_headers=["who"]) == stamped


async def test_what_lacks_arguments_is_not_sent(add, mul, total):
    lacking = mul.s(1)
    async with mul.app as queue:
        for whole in (
            lacking,
            lacking | add.s(),
            chain(group(), lacking, add.s(), priority=1),
            group(mul.si(1, 2), lacking),
            group(group(lacking)),
            chord([lacking | add.s()], total.s()),
            group(lacking for _ in range(3)),
            chord((lacking for _ in range(3)), total.s()) | add.s(),
        ):
            with pytest.raises(TypeError, match=r"w\.mul"):
                await whole.delay()
            assert await whole.delay(2)
        for whole in (lacking | add.s(), group(lacking), chord([lacking], total.s())):
            assert await whole.apply_async(kwargs={"y": 2})
        assert await (mul.si(1, 2) | lacking).delay(5)
        assert await (queue.signature("w.unknown", (1, 2, 3)) | lacking).delay()
        with pytest.raises(ConfigError, match="needs a body"):
            await chord([mul.s(1, 2)]).delay()


def test_calling_one_calls_the_function(add, mul):
    assert asyncio.run(mul.s(3)(2)) == 6
    assert asyncio.run(mul.si(3, 4)(2)) == 12


def test_it_is_an_argument_of_a_task(add, mul):
    whole = add.s(1) | group(mul.s(2), mul.s(3))
    assert json.loads(jsontypes.dumps({"next": [whole]})) == {"next": [json.loads(json.dumps(whole.to_dict()))]}
    assert whole.__json__() == whole.to_dict()
    assert json.loads(jsontypes.dumps(add.s(whole).to_dict()))["args"] == [json.loads(json.dumps(whole.to_dict()))]
    assert json.loads(json.dumps(add.s(whole, y=whole).to_dict()))["kwargs"]["y"]["subtask_type"] == "chain"
    with pytest.raises(EncodeError):
        jsontypes.dumps(add.s(object()))


def test_it_is_copied_and_pickled(add, mul, total):
    for whole in (
        add.s([1]),
        chord([add.s([1]), mul.s(2)], total.s()),
        chord([add.s(1)]),
        chunks(add.s(), iter([[1, 2], [3, 4]]), 1),
        group(add.s(n) for n in range(3)),
    ):
        assert copy.copy(whole) is whole
        assert copy.deepcopy(whole) == whole
        again = pickle.loads(pickle.dumps(whole))
        assert again.to_dict() == whole.to_dict()
    inner = add.s([1])
    copy.deepcopy(inner).args[0].append(2)
    assert inner.args == ([1],)


def without_immutable(value: Any) -> Any:
    """Celery writes it as an option, which nothing reads."""
    if isinstance(value, list):
        return [without_immutable(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {name: without_immutable(each) for name, each in value.items()}
    if isinstance(found.get("options"), dict):
        found["options"].pop("immutable", None)
    return found


@pytest.mark.parametrize("told", [False, True])
def test_errbacks_of_a_chord_are_its_headers_where_that_is_set(told):
    theirs = celery.Celery("theirs", set_as_current=False)
    theirs.conf.task_allow_error_cb_on_chord_header = told
    ours = TaskQueue(memory_url(), task_allow_error_cb_on_chord_header=told)

    def canvases(make, s):
        yield make.chord([s("a"), s("b") | s("c")], s("d")).on_error(s("e"))
        yield make.group(s("x"), make.chord([s("a")], s("d"))).on_error(s("e"))
        whole = make.chain(s("a"), make.chord([s("b")], s("c")), priority=None).on_error(s("e"))
        yield whole | make.group(s("d"), s("f"))

    expected = canvases(Celerys, theirs.signature)
    found = list(canvases(Ours, ours.signature))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Celery's, of the setting
        assert [written(each) for each in found] == [without_immutable(written(each)) for each in expected]
    assert ("link_error" in found[0].tasks[0].options) is told


# -- members from generators


def counted(add, made, number):
    for n in range(number):
        made.append(n)
        yield add.s(n)


def test_generators_are_not_read_at_composing(add, total):
    made: list[int] = []
    whole = group(counted(add, made, 5)) | total.s()
    other = chord(counted(add, made, 5), total.s()) | add.s()
    stamped = group(counted(add, made, 5)).stamp(who="me").link_error(add.si(1)).set(queue="q", immutable=True)
    skewed = group(counted(add, made, 5)).skew(step=2)
    listed = add.chunks(([made.append(n), n] for n in range(5)), 2)
    for each in (whole, other, stamped, skewed, listed):
        repr(each)
    assert made == []
    assert [each.args for each in other.tasks] == [(n,) for n in range(5)]
    assert [each.options["countdown"] for each in skewed.tasks] == [1, 3, 5, 7, 9]
    assert stamped.tasks[4].immutable
    assert len(listed.group().tasks) == 3


def test_what_follows_a_generator_needs_only_its_beginning(add):
    made: list[int] = []
    assert (add.s(1) | group(counted(add, made, 100))).subtask_type == "chain"
    assert made == [0, 1]  # one would have been a step by itself
    assert (add.s(1) | group(counted(add, [], 1))) == add.s(1) | add.s(0)


def test_short_generators_may_be_read_again_and_long_ones_not(add):
    short = group(add.s(n) for n in range(1000))
    assert len(short.tasks) == len(short.tasks) == 1000
    assert len(short.set(immutable=True).tasks) == 1000
    long = group(add.s(n) for n in range(1100))
    assert len(long.tasks) == 1100
    with pytest.raises(ConfigError, match="generator"):
        long.to_dict()
    with pytest.raises(ConfigError, match="generator"):
        (long | add.s()).to_dict()
    twice = group(add.s(n) for n in range(1100))
    first, second = iter(twice.node.steps), iter(twice.node.steps)
    list(itertools.islice(first, 1050))
    with pytest.raises(ConfigError, match="generator"):
        list(second)
    assert len(list(first)) == 50


def test_a_long_generator_needs_no_memory(add):
    whole = group(add.s(n) for n in range(20_000)).set(queue="q") | add.s()
    tracemalloc.start()
    try:
        assert sum(1 for _ in whole.node.steps) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_an_error_of_a_generator_is_told(add):
    def broken():
        yield add.s(1)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        group(broken()).to_dict()


def test_maps_take_any_iterable(add):
    assert add.map(n for n in range(3)) == xmap(add.s(), [0, 1, 2])
    assert add.starmap([(1, 2)]).kwargs["it"] == [(1, 2)]
    assert add.chunks(zip(range(4), range(4), strict=True), 3).group().tasks[1].kwargs["it"] == [(3, 3)]


# -- sent


@pytest.fixture
def ours(queue):
    return {name.removeprefix("w."): task for name, task in queue.tasks.items() if name.startswith("w.")}


async def test_chunks_are_parts_of_workflows(worker, ours):
    add, echo = ours["add"], ours["echo"]
    chunks = add.chunks([(1, 2), (3, 4), (5, 6)], 2)
    assert await soon((await (chunks | echo.s())).get()) == [[3, 7], [11]]
    assert await soon((await (echo.s(1) | chunks | echo.s())).get()) == [[3, 7], [11]]
    assert await soon((await chord(chunks, echo.s())).get()) == [[3, 7], [11]]
    assert await soon((await (add.chunks(zip(range(4), range(4), strict=True), 3) | echo.s())).get()) == [
        [0, 2, 4],
        [6],
    ]
    nested = group(chunks, add.s(1, 1)) | echo.s()
    assert await soon((await nested).get()) == [[3, 7], [11], 2]  # groups in groups are one group


async def test_workflows_are_awaited(worker, ours):
    add = ours["add"]
    assert await soon((await (add.s(1, 2) | add.s(10))).get()) == 13
    assert await soon((await group(add.s(1, 2), add.s(3, 4))).get()) == [3, 7]
    assert await soon((await group(add.s(n, n) for n in range(3))).get()) == [0, 2, 4]
    assert await soon((await (add.s() | add.s(10)).delay(1, y=5)).get()) == 16
    assert await soon((await chord([add.s(1, 2), add.s(3, 4)])(ours["echo"].s())).get()) == [3, 7]
    assert await soon((await add.chunks([(1, 2), (3, 4), (5, 6)], 2).apply_async()).get()) == [[3, 7], [11]]
    assert await soon((await add.starmap([(1, 2)]).delay()).get()) == [3]
    assert await soon((await add.s(1, 2)).get()) == 3
    assert await soon((await signature("w.add", (1, 2), app=add.app).apply_async()).get()) == 3
    result = await add.s(1, 2).apply_async(task_id="chosen")
    assert result.id == "chosen"
