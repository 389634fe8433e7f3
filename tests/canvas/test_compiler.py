"""What is sent for a workflow: the same as Celery's client sends (tests/golden)."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from canvas.composing import app, s, si, written
from canvas.planning import planned, sender
from celery import chain, chord, group
from celery.canvas import Signature
from hypothesis import given, settings
from hypothesis import strategies as st

from aioretryq.calling import compose, options_of_signature
from aioretryq.config import Settings
from aioretryq.errors import ProtocolError
from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import (
    CHAIN,
    CHORD,
    GROUP,
    MAX_DEPTH,
    TASK,
    Node,
    as_dict,
    chord_of,
    group_of,
    read_signature,
    size,
)
from aioretryq.workflows.bulk import BulkCompiler
from aioretryq.workflows.compiler import Compiler
from aioretryq.workflows.plan import Like, Plan
from aioretryq.workflows.sender import Sender

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "task_messages_v2.json").read_text())
ID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-.*|id\d+$")


def compiled(signature: Signature | dict, args=(), **options) -> Plan:
    numbers = itertools.count(1)

    def made(name, args, kwargs, options):
        call = options_of_signature(options, name)
        return compose(name, (args, kwargs), call, task=None, settings=Settings(), caller=None, now=0.0)

    compiler = Compiler(Sender(made, lambda: f"id{next(numbers)}", "here", 0.0))
    found = signature if type(signature) is dict else written(signature)
    compiler.apply(read_signature(found), args, options=options)
    return compiler.plan


def add(*args, **options):
    return app.signature("labapp.add", args=args, options=options)


def xsum(**options):
    return app.signature("labapp.xsum", options=options)


def onerr():
    return app.signature("labapp.onerr")


CASES = {
    "chain": add(1, 2) | add(3) | app.signature("labapp.add", args=(9, 9), immutable=True),
    "group": group(add(1, 1), add(2, 2)),
    "chord": chord([add(1, 1), add(2, 2)], xsum()),
    "chord_one": chord([add(1, 1)], xsum()),
    "chain_group_task": chain(add(1, 1), group(add(2), add(3)), xsum()),
    "group_in_chain_end": chain(add(1, 1), group(add(2), add(3))),
    "chord_body_chain": chord([add(1, 1), add(2, 2)], chain(xsum(), add(10))),
    "chord_of_chord": chord([chord([add(1, 1), add(2, 2)], xsum()), add(3, 3)], xsum()),
    "chord_complex_header": chord([add(1, 1) | group(add(1), add(2)), add(3, 3)], xsum()),
    "chord_error": chord([add(1, 1), app.signature("labapp.boom")], xsum(link_error=[onerr()])),
    "chain_priority": chain(add(1, 1), add(2)).set(priority=3, queue="cq"),
}
CASES["chain_links"] = chain(add(1, 1), add(2))
CASES["chain_links"].set(link=[app.signature("labapp.cb")], link_error=[onerr()])


def shape(message):
    """A message without what differs from sender to sender."""
    headers, body = message
    kept = {name: headers[name] for name in ("task", "id", "group", "group_index", "root_id", "stamps")}
    return {**kept, "body": body}


_ASIDE = ("reply_to", "add_to_parent")  # the sender's name; an option of Celery's that leaks into a body


def named(value, names):
    """Ids by the order of their appearance; options that say nothing left out."""
    if isinstance(value, dict):
        said = {k: v for k, v in value.items() if v not in (None, [], {}) and k not in _ASIDE}
        return {k: named(said[k], names) for k in sorted(said)}
    if isinstance(value, list):
        return [named(each, names) for each in value]
    if isinstance(value, str) and ID.match(value):
        return names.setdefault(value, f"#{len(names)}")
    return value


def theirs(case):
    keys = GOLDEN[case]["keys"]
    lists = [v for k, v in keys.items() if not k.startswith(("_kombu", "celery-t"))]
    entries = [entry for kept in lists for entry in reversed(kept["entries"])]
    return [shape((entry["raw"]["headers"], entry["decoded_body"])) for entry in entries]


def ours(plan):
    shapes = []
    for m in plan.messages:
        headers = {"task": m.task, "id": m.id, "group": m.group, "group_index": m.group_index}
        headers |= {"root_id": m.root_id, "stamps": m.stamps}
        embed = {"callbacks": m.callbacks, "errbacks": m.errbacks, "chain": m.chain, "chord": m.chord}
        shapes.append(shape((headers, [m.args, m.kwargs, embed])))
    return shapes


def compared(messages):
    ordered = sorted(messages, key=lambda m: (json.dumps(m["body"][:2]), m["task"]))
    return named(json.loads(json.dumps(ordered)), {})


@pytest.mark.parametrize("case", CASES)
def test_the_same_messages_as_celery_sends(case):
    plan = compiled(CASES[case])
    assert compared(ours(plan)) == compared(theirs(case))
    sizes = sorted(v["value"]["value"] for k, v in GOLDEN[case]["keys"].items() if k.endswith(".s"))
    # For a group in a header Celery writes a size of its own, which nothing ever reads.
    assert set(sizes) >= {opening.size for opening in plan.openings}
    trees = [
        v["value"]["value"]["result"] for k, v in GOLDEN[case]["keys"].items() if re.search(r"taskset.*\w{12}$", k)
    ]
    assert named(trees, {}) == named([o.structure for o in plan.openings if o.structure is not None], {})


def test_the_value_goes_before_own_arguments_unless_they_are_immutable():
    plan = compiled(group(s("a", 1), si("b", 2), chain(s("c", 3), s("d"))), ("v",))
    assert [m.args for m in plan.messages] == [["v", 1], [2], ["v", 3]]


def test_ids_that_the_client_gave_stay():
    sent = written(chain(s("a"), group(s("b", task_id="B"), s("c")), s("d", task_id="D")))
    plan = compiled(sent)
    (chord_step,) = plan.messages[0].chain
    assert chord_step["kwargs"]["body"]["options"]["task_id"] == "D"
    assert chord_step["kwargs"]["header"]["kwargs"]["tasks"][0]["options"]["task_id"] == "B"


def test_a_chain_in_a_chord_is_its_last_step():
    plan = compiled(chord([chain(s("a"), s("b"))], s("c")))
    (message,) = plan.messages
    assert (message.group, message.chord) == (None, None)
    (last,) = message.chain
    assert last["options"]["group_id"] == plan.openings[0].group_id
    assert last["options"]["chord"]["task"] == "w.c"


def test_empty_things():
    assert compiled(group()).messages == []
    assert compiled(chain()).messages == []
    (body,) = compiled(chord([], s("c"))).messages
    assert (body.task, body.args) == ("w.c", [[]])
    first = written(s("a"))
    steps = [written(group()), first, written(group()), first]
    value = {"task": "celery.chain", "kwargs": {"tasks": steps}, "options": {}, "subtask_type": "chain"}
    (message,) = compiled(value).messages
    assert len(message.chain) == 1


def test_a_group_followed_by_a_group_followed_by_a_task():
    plan = compiled(chain(group(s("a"), s("b")), group(s("c"), s("d")), s("e")))
    assert [opening.size for opening in plan.openings] == [2]
    body = plan.messages[0].chord
    assert body["subtask_type"] == "chord"
    assert body["kwargs"]["body"]["task"] == "w.e"


def test_options_of_a_group_reach_its_members():
    plan = compiled(group(s("a"), s("b", queue="own")), priority=5, queue="q")
    assert [(m.routing_key, m.priority) for m in plan.messages] == [("q", 5), ("q", 5)]


def test_stamps_of_a_signature_stay_its_own():
    stamped = written(s("a"))
    stamped["options"] = {"stamped_headers": ["who"], "who": "me"}
    (message,) = compiled(stamped, who="you", stamped_headers=["who"]).messages
    assert (message.stamped_headers, message.stamps) == (["who"], {"who": "me"})


@pytest.mark.parametrize(
    "broken",
    [
        None,
        "text",
        [],
        {},
        {"task": 1},
        {"task": ""},
        {"task": "a", "args": 3},
        {"task": "a", "args": {"x": 1}},
        {"task": "a", "kwargs": []},
        {"task": "a", "kwargs": {1: 2}},
        {"task": "a", "options": "x"},
        {"task": "a", "options": {"task_id": 5}},
        {"task": "a", "options": {"task_id": ""}},
        {"task": "a", "options": {"task_id": "\ud800"}},
        {"task": "a", "options": {"group_index": "one"}},
        {"task": "a", "options": {"group_index": 2**60}},
        {"task": "a", "options": {"link": "x"}},
        {"task": "a", "options": {"chord": [1]}},
        {"task": "a", "options": {"stamped_headers": [1]}},
        {"task": "a", "subtask_type": "circle"},
        {"task": "a", "subtask_type": []},
        {"task": "a", "subtask_type": "chord", "kwargs": {"header": []}},
        {"task": "a", "subtask_type": "chord", "kwargs": {"header": 1, "body": {"task": "b"}}},
        {"task": "a", "subtask_type": "group", "kwargs": {"tasks": [1]}},
        {"task": "a", "subtask_type": "chain", "kwargs": {"tasks": "abc"}},
    ],
)
def test_what_is_no_signature_is_refused(broken):
    with pytest.raises(ProtocolError):
        read_signature(broken)


def test_depth_is_limited():
    value = {"task": "a"}
    for _ in range(MAX_DEPTH + 1):
        value = {"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [value]}}
    with pytest.raises(ProtocolError, match="deep"):
        read_signature(value)


def _of(kind, steps):
    return {
        "task": f"celery.{kind}",
        "args": [],
        "kwargs": {"tasks": [written(step) for step in steps]},
        "options": {},
        "subtask_type": kind,
        "immutable": False,
    }


def _chord(header, body):
    kwargs = {"kwargs": {}, "header": written(_of("group", header)), "body": written(body)}
    return {**_of("chord", ()), "kwargs": kwargs}


leaves = st.builds(lambda n: s("add", n), st.integers(0, 9))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda steps: _of("chain", steps), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda steps: _of("group", steps), st.lists(inner, max_size=3)),
        st.builds(_chord, st.lists(inner, max_size=3), inner),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(trees)
def test_any_workflow_is_read_written_and_sent_the_same_each_time(tree):
    value = written(tree)
    node = read_signature(value)
    assert as_dict(node) == value
    one = two = None
    try:
        one = compiled(value, ("x",))
    except ProtocolError:
        assert "empty" in repr(value) or '"tasks": []' in json.dumps(value)
        return
    two = compiled(json.loads(json.dumps(value)), ("x",))
    assert ours(one) == ours(two)
    assert [o.size for o in one.openings] == [o.size for o in two.openings]
    assert value == written(tree), "what is read is not changed"
    assert size(node) >= 0
    ids = [message.id for message in one.messages]
    assert len(set(ids)) == len(ids)


# -- plans


def nodes():
    calls_ = st.builds(
        lambda name, number: Node(TASK, f"w.{name}", args=(number,)), st.sampled_from("abc"), st.integers(0, 9)
    )

    def of(children):
        several = st.lists(children, min_size=1, max_size=3)
        return st.one_of(
            several.map(lambda steps: Node(CHAIN, "celery.chain", subtask_type=CHAIN, steps=tuple(steps))),
            several.map(group_of),
            st.tuples(several, children).map(lambda both: chord_of(group_of(both[0]), both[1])),
        )

    return st.recursive(calls_, of, max_leaves=12)


def parts_of(plan):
    """What returns to each chord that is opened: messages, the end of their chains, bodies of chords in headers."""
    found = {}
    for message in plan.messages:
        ends = [] if message.chain or not message.chord else [(message.group, message.id)]
        for later in [*(message.chain or ())[:1], *([message.chord] if message.chord else ())]:
            ends += returning(read_signature(later))
        for gid, task_id in ends:
            found.setdefault(gid, set()).add(task_id)
    return found


def returning(node, to=None):
    if node.options.get("chain"):
        return returning(read_signature(node.options["chain"][0]))
    to = node.options.get("group_id") if node.options.get("chord") else to
    if node.kind == GROUP:
        return [pair for step in node.steps for pair in returning(step, to)]
    if node.kind == CHAIN:
        return returning(node.steps[-1], to)
    if node.kind == CHORD:
        return returning(node.body, to)
    awaited = node.options.get("chord")
    return [*([(to, node.task_id)] if to else []), *(returning(read_signature(awaited)) if awaited else [])]


@given(nodes())
@settings(max_examples=150)
def test_plans_of_any_tree(node):
    plan, again = planned(node), planned(node)
    assert plan.messages == again.messages
    assert plan.openings == again.openings
    assert plan.result.as_tuple() == again.result.as_tuple()
    ids = [message.id for message in plan.messages]
    assert len(ids) == len(set(ids))
    returned = parts_of(plan)
    for opening in plan.openings:
        assert opening.size == len(returned[opening.group_id])
        assert read_signature(json.loads(opening.body))
    for size_ in (1, 2, 1000):
        batches = list(plan.batches(size_))
        assert [m for batch in batches for m in batch.messages] == plan.messages
        assert [batch.last for batch in batches] == [False] * (len(batches) - 1) + [True]
        assert list(batches[0].openings) == [o for batch in batches for o in batch.sent] == plan.openings


@given(nodes(), st.integers(1, 50))
@settings(max_examples=100)
def test_members_that_are_made_later_become_the_same(member, size_):
    """As a header, a group or the first step of a chain, whether it is a list or not, whatever is in it."""
    plain = [Node(TASK, "w.a", args=(1,)), Node(TASK, "w.a", args=(2,)), Node(TASK, "w.b", kwargs={"x": "y"})]
    members = [member, *plain]
    kinds = [
        group_of,
        lambda steps: chord_of(group_of(steps), Node(TASK, "w.total")),
        lambda steps: Node(CHAIN, "celery.chain", steps=(group_of(steps), Node(TASK, "w.total"))),
    ]
    for kind in kinds:
        for source in (iter(members), tuple(members)):
            at_once = planned(kind(members))
            compiler = BulkCompiler(sender(uniform=lambda name: True))
            compiler.plan.result = compiler.apply(kind(Members(source)))
            batches = list(compiler.plan.batches(size_))
            made = [m.message() if isinstance(m, Like) else m for batch in batches for m in batch.messages]
            assert same(made) == same(at_once.messages)
            known = {each.group_id: each for batch in batches for each in (*batch.openings, *batch.seals)}.values()
            assert sorted(o.size for o in known) == sorted(o.size for o in at_once.openings)
            assert sum(o.structure is None for o in known) == sum(o.structure is None for o in at_once.openings)
            header = next(each for each in ancestry(at_once.result) if each.members is not None)
            assert len(compiler.plan.bulk.handle.members) == len(header.members)


def same(messages):
    """Messages without ids, which are made in another order."""
    return [(m.task, m.args, m.kwargs, m.group_index, m.argsrepr, not m.chord, len(m.chain or ())) for m in messages]


def ancestry(handle):
    while handle is not None:
        yield handle
        handle = handle.parent
