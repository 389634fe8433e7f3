"""Stamps, put on workflows by Celery's canvas and by ours."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from canvas.both import Celerys, Ours, both
from celery.canvas import StampingVisitor as TheirVisitor

import aioretryq
from aioretryq import Signature, StampingVisitor

pytestmark = pytest.mark.filterwarnings("ignore:task_allow_error_cb_on_chord_header=False")

METHODS = [
    "on_signature",
    "on_group_start",
    "on_group_end",
    "on_chain_start",
    "on_chain_end",
    "on_chord_header_start",
    "on_chord_header_end",
    "on_chord_body",
    "on_callback",
    "on_errback",
]

CANVASES: dict[str, Any] = {
    "call": lambda c: c.s("a"),
    "chain": lambda c: c.s("a") | c.s("b"),
    "group": lambda c: c.group(c.s("a"), c.s("b") | c.s("c")),
    "generator": lambda c: c.group(c.s("a", n) for n in range(3)),
    "empty": lambda c: c.group(),
    "chord": lambda c: c.chord([c.s("a"), c.s("b")], c.s("c")),
    "chord_generator": lambda c: c.chord((c.s("a", n) for n in range(3)), c.s("c")),
    "chord_body_group": lambda c: c.chord([c.s("a")], c.group(c.s("b"), c.s("c"))),
    "chord_in_chain": lambda c: c.s("x") | c.chord([c.s("a"), c.s("b")], c.s("c") | c.s("d")),
    "chord_of_chord": lambda c: c.chord([c.chord([c.s("a")], c.s("b")), c.s("c")], c.s("d")),
    "links": lambda c: linked(c, c.s("a")),
    "links_of_chain": lambda c: linked(c, c.s("a") | c.s("b")),
    "links_of_body": lambda c: linked(c, c.chord([c.s("a")], c.s("b"))),
    "links_in_group": lambda c: c.group(linked(c, c.s("a")), c.s("b")),
    "link_of_link": lambda c: c.changed(c.s("z"), "link", linked(c, c.s("a"))),
    "link_is_group": lambda c: c.changed(c.s("z"), "link", c.group(c.s("a"), c.s("b") | c.s("c"))),
    "had_stamps": lambda c: c.changed(c.s("a"), "stamp", who="before", own=1) | c.s("b"),
    "had_stamps_in_group": lambda c: c.group(c.changed(c.s("a"), "stamp", who="before"), c.s("b")),
}


def linked(c: Any, signature: Any) -> Any:
    for method, name in (("link", "l1"), ("link", "l2"), ("link_error", "e1"), ("link_error", "e2")):
        signature = c.changed(signature, method, c.si(name))
    return signature


class Answers:
    """What a visitor says, and what it was asked."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []

    def said(self, method: str, signature: Any, headers: dict[str, Any]) -> Any:
        stamps = {name: value for name, value in headers.items() if name != "stamped_headers"}
        self.asked.append((method, signature["task"], stamps))
        answer = self.answers.get(method)
        return copy.deepcopy(answer)  # Celery changes what it is given


def visitor_of(base: type, answers: Answers) -> Any:
    def method(name: str) -> Any:
        return lambda self, signature, **headers: answers.said(name, signature, headers)

    methods = {name: method(name) for name in METHODS if name in answers.answers or name == "on_signature"}
    return type("Visitor", (base,), methods)()


VISITS: dict[str, dict[str, Any]] = {
    "each_call": {"on_signature": {"who": "visitor"}},
    "nothing": {"on_signature": None},
    "named": {"on_signature": {"who": 1, "other": 2, "stamped_headers": ["who"]}},
    "groups": {"on_signature": {}, "on_group_start": {"in_group": True}, "on_group_end": None},
    "chains": {"on_signature": {"a": 1}, "on_chain_start": {"in_chain": 1}, "on_chain_end": None},
    "chords": {"on_signature": {}, "on_chord_header_start": {"in_header": 1}, "on_chord_body": {"in_body": 2}},
    "links": {"on_signature": {"s": "s"}, "on_callback": {"back": 1}, "on_errback": {"err": {"x": 1}}},
    "all": {name: {"who": name, name: 1} for name in METHODS if "end" not in name},
}


@pytest.mark.parametrize("visit", VISITS)
@pytest.mark.parametrize("name", CANVASES)
def test_visitors_are_asked_and_heard_as_celerys(name: str, visit: str) -> None:
    asked = []

    def make(api: Any) -> Any:
        answers = Answers(VISITS[visit])
        asked.append(answers.asked)
        visitor = visitor_of(TheirVisitor if isinstance(api, Celerys) else StampingVisitor, answers)
        return api.changed(CANVASES[name](api), "stamp", visitor)

    celerys, ours = both(make)
    assert ours == celerys
    if "generator" not in name:  # those of a generator are stamped when they are read
        assert asked[1] == asked[0]


def silent(api: Any) -> Any:
    return visitor_of(TheirVisitor, Answers({})) if isinstance(api, Celerys) else None


@pytest.mark.parametrize("name", CANVASES)
def test_stamps_without_a_visitor_are_celerys(name: str) -> None:
    # With a visitor that says nothing Celery stamps the bodies of chords, too; ours always are.
    celerys, ours = both(lambda c: c.changed(CANVASES[name](c), "stamp", silent(c), who="me", n=3))
    assert ours == celerys
    celerys, ours = both(lambda c: c.changed(CANVASES[name](c), "stamp_links", None, who="me"))
    assert ours == celerys


@pytest.mark.parametrize("name", ["call", "chain", "group", "chord", "had_stamps_in_group"])
def test_stamps_are_appended_as_in_celery(name: str) -> None:
    def make(c: Any) -> Any:
        once = c.changed(CANVASES[name](c), "stamp", silent(c), who="first")
        return c.changed(once, "stamp", silent(c), append_stamps=True, who="second")

    celerys, ours = both(make)
    assert ours == celerys


def test_a_visitor_need_not_say_anything_of_most() -> None:
    class Who(StampingVisitor):
        def on_signature(self, sig: Signature[Any, Any], **headers: Any) -> dict[str, Any]:
            assert isinstance(sig, Signature)
            return {"task_was": sig.task}

    found = Ours().chord([Ours().s("a")], Ours().s("b")).stamp(Who())
    assert [each.options["task_was"] for each in (*found.tasks, found.body)] == ["w.a", "w.b"]
    assert StampingVisitor.__abstractmethods__ == {"on_signature"}


def test_stamped_generators_are_still_read_late() -> None:
    made = []

    def calls() -> Any:
        for n in range(5):
            made.append(n)
            yield Ours().s("a", n)

    group = aioretryq.group(calls()).stamp(who="me")
    assert made == []
    assert [each.options["who"] for each in group.tasks] == ["me"] * 5


def test_lists_of_stamps_grow_where_they_are_and_nowhere_else() -> None:
    """Celery lets all calls share one list, which then has what was meant for others."""

    class Chains(StampingVisitor):
        def on_signature(self, sig: Signature[Any, Any], **headers: Any) -> None:
            return None

        def on_chain_start(self, chain: Signature[Any, Any], **headers: Any) -> dict[str, Any]:
            return {"depth": [1]}

    c = Ours()
    found = (c.s("x") | c.chord([c.s("a")], c.s("c") | c.s("d"))).stamp(Chains())
    x, chord = found.tasks
    assert x.options["depth"] == [1]
    assert [step.options["depth"] for step in chord.body.tasks] == [[1, 1], [1, 1]]
