"""What our canvas composes reads as what Celery's composes of the same expression."""

from __future__ import annotations

from typing import Any

import pytest
from canvas.both import both, normal
from hypothesis import given, settings
from hypothesis import strategies as st

from aioretryq import Signature

pytestmark = pytest.mark.filterwarnings("ignore:task_allow_error_cb_on_chord_header=False")

CANVASES: dict[str, Any] = {
    "call": lambda c: c.s("add", 1, y=2),
    "immutable": lambda c: c.si("add", 1, 2),
    "options": lambda c: c.changed(c.s("add", 1), "set", countdown=3, queue="q", priority=4),
    "set_immutable": lambda c: c.changed(c.s("add", 1), "set", immutable=True, queue="q"),
    "clone": lambda c: c.s("add", 1, y=2).clone((5,), {"y": 3}, queue="q"),
    "clone_immutable": lambda c: c.si("add", 1).clone((5,), {"y": 3}, queue="q"),
    "replace": lambda c: c.s("add", 1, y=2).replace(args=(7,), kwargs={"z": 1}, options={"queue": "r"}),
    "replace_args": lambda c: c.changed(c.s("add", 1, y=2), "set", queue="q").replace(args=(7,)),
    "link": lambda c: c.changed(c.s("add", 1), "link", c.s("mul", 2)),
    "links": lambda c: c.changed(c.changed(c.s("a"), "link", c.s("b")), "link", c.s("c")),
    "link_twice": lambda c: c.changed(c.changed(c.s("a"), "link", c.s("b")), "link", c.s("b")),
    "link_of_link": lambda c: c.changed(c.s("a"), "link", c.changed(c.s("b"), "link", c.s("c"))),
    "link_error": lambda c: c.changed(c.s("a"), "link_error", c.si("b")),
    "on_error": lambda c: c.s("a").on_error(c.si("b")),
    "link_group": lambda c: c.changed(c.s("a"), "link", c.group(c.s("b"), c.s("c"))),
    "two": lambda c: c.s("a") | c.s("b"),
    "three": lambda c: c.s("a") | c.s("b") | c.s("c"),
    "right": lambda c: c.s("a") | (c.s("b") | c.s("c")),
    "chain": lambda c: c.chain(c.s("a"), c.s("b"), c.s("c")),
    "chain_list": lambda c: c.chain([c.s("a"), c.s("b")]),
    "chain_generator": lambda c: c.chain(c.s("a", n) for n in range(3)),
    "chain_empty": lambda c: c.chain(),
    "chain_empty_list": lambda c: c.chain([]),
    "chain_one": lambda c: c.chain(c.s("a")),
    "chain_one_list": lambda c: c.chain([c.s("a")]),
    "chain_group": lambda c: c.chain(c.group(c.s("a"), c.s("b"))),
    "chain_group_list": lambda c: c.chain([c.group(c.s("a"), c.s("b"))]),
    "chain_options": lambda c: c.chain(c.group(c.s("a"), c.s("b")), c.s("c"), queue="q"),
    "chain_of_chains": lambda c: c.chain(c.chain(c.s("a"), c.s("b")), c.chain(c.s("c"), c.s("d"))),
    "chain_set": lambda c: c.changed(c.s("a") | c.s("b"), "set", queue="q", priority=3),
    "chain_link": lambda c: c.changed(c.s("a") | c.s("b"), "link", c.s("c")),
    "chain_link_then": lambda c: c.changed(c.s("a") | c.s("b"), "link", c.s("c")) | c.s("d"),
    "chain_link_error_then": lambda c: c.changed(c.s("a") | c.s("b"), "link_error", c.si("c")) | c.s("d"),
    "chain_link_error_in": lambda c: c.s("x") | c.changed(c.s("a") | c.s("b"), "link_error", c.si("c")),
    "chain_immutable": lambda c: c.changed(c.s("a") | c.s("b"), "set", immutable=True),
    "group": lambda c: c.group(c.s("a"), c.s("b")),
    "group_list": lambda c: c.group([c.s("a"), c.s("b")]),
    "group_generator": lambda c: c.group(c.s("a", n) for n in range(3)),
    "group_one": lambda c: c.group(c.s("a")),
    "group_empty": lambda c: c.group(),
    "group_empty_list": lambda c: c.group([]),
    "group_of_group": lambda c: c.group(c.group(c.s("a"), c.s("b"))),
    "group_of_groups": lambda c: c.group(c.group(c.s("a")), c.group(c.s("b"), c.s("c"))),
    "group_of_chains": lambda c: c.group(c.s("a") | c.s("b"), c.s("c") | c.s("d")),
    "group_options": lambda c: c.group(c.s("a"), c.s("b"), queue="q"),
    "group_set": lambda c: c.changed(c.group(c.s("a")), "set", queue="q", immutable=True),
    "group_link": lambda c: c.changed(c.group(c.s("a"), c.s("b")), "link", c.s("c", 1)),
    "group_link_error": lambda c: c.changed(c.group(c.s("a"), c.s("b") | c.s("d")), "link_error", c.si("c")),
    "skew": lambda c: c.changed(c.group(c.s("a", n) for n in range(4)), "skew", start=1, stop=3),
    "skew_steps": lambda c: c.changed(c.group([c.s("a", n) for n in range(4)]), "skew", 0.5, step=2),
    "chord": lambda c: c.chord([c.s("a"), c.s("b")], c.s("c")),
    "chord_group": lambda c: c.chord(c.group(c.s("a"), c.s("b")), c.s("c")),
    "chord_of_one": lambda c: c.chord(c.s("a"), c.s("c")),
    "chord_chain": lambda c: c.chord(c.s("a") | c.s("b"), c.s("c")),
    "chord_generator": lambda c: c.chord((c.s("a", n) for n in range(3)), c.s("c")),
    "chord_empty": lambda c: c.chord([], c.s("c")),
    "chord_without_body": lambda c: c.chord([c.s("a")]),
    "chord_options": lambda c: c.chord([c.s("a")], c.s("c"), queue="q"),
    "chord_of_chord": lambda c: c.chord([c.chord([c.s("a"), c.s("b")], c.s("c")), c.s("d")], c.s("e")),
    "chord_group_body": lambda c: c.chord([c.s("a"), c.s("b")], c.group(c.s("c"), c.s("d"))),
    "chord_chain_body": lambda c: c.chord([c.s("a"), c.s("b")], c.s("c") | c.s("d")),
    "chord_link": lambda c: c.changed(c.chord([c.s("a"), c.s("b")], c.s("c")), "link", c.s("d")),
    "chord_link_group_body": lambda c: c.changed(
        c.chord([c.s("a")], c.group(c.s("c"), c.s("d"))), "link", c.s("e", 1)
    ),
    "chord_link_error": lambda c: c.changed(
        c.chord([c.s("a"), c.chord([c.s("x")], c.s("y"))], c.s("c")), "link_error", c.si("d")
    ),
    "chord_immutable": lambda c: c.changed(c.chord([c.s("a"), c.s("b")], c.s("c")), "set", immutable=True),
    "group_then": lambda c: c.group(c.s("a"), c.s("b")) | c.s("c"),
    "group_of_one_then": lambda c: c.group(c.s("a")) | c.s("c"),
    "group_then_two": lambda c: c.group(c.s("a"), c.s("b")) | c.s("c") | c.s("d"),
    "group_then_group": lambda c: c.group(c.s("a"), c.s("b")) | c.group(c.s("c"), c.s("d")),
    "group_then_one": lambda c: c.group(c.s("a"), c.s("b")) | c.group(c.s("c")),
    "group_then_empty": lambda c: c.group(c.s("a"), c.s("b")) | c.group(),
    "group_then_chain": lambda c: c.group(c.s("a"), c.s("b")) | (c.s("c") | c.s("d")),
    "then_group": lambda c: c.s("a") | c.group(c.s("b"), c.s("c")),
    "then_group_of_one": lambda c: c.s("a") | c.group(c.s("b")),
    "then_group_of_group": lambda c: c.s("a") | c.group(c.group(c.s("b"), c.s("x")), c.s("c")),
    "then_generator_of_one": lambda c: c.s("a") | c.group(c.s("b", n) for n in range(1)),
    "then_generator": lambda c: c.s("a") | c.group(c.s("b", n) for n in range(3)),
    "then_empty": lambda c: c.s("a") | c.group(),
    "then_group_then": lambda c: c.s("a") | c.group(c.s("b"), c.s("c")) | c.s("d"),
    "then_group_then_two": lambda c: c.s("a") | c.group(c.s("b"), c.s("c")) | c.s("d") | c.s("e"),
    "then_groups": lambda c: c.s("a") | c.group(c.s("b"), c.s("c")) | c.group(c.s("d"), c.s("e")),
    "then_groups_then": lambda c: c.s("a") | c.group(c.s("b"), c.s("c")) | c.group(c.s("d"), c.s("e")) | c.s("f"),
    "chain_of_groups": lambda c: c.chain(
        c.group(c.s("a"), c.s("b")), c.group(c.s("c"), c.s("d")), c.s("e"), c.group(c.s("f"), c.s("g")), c.s("h")
    ),
    "chain_of_empties": lambda c: c.chain(c.group(), c.s("a"), c.group(), c.s("b")),
    "chain_empties_only": lambda c: c.chain(c.group(), c.group()),
    "empty_chain_then": lambda c: c.chain() | c.s("a"),
    "empty_chain_then_group": lambda c: c.chain() | c.group(c.s("a"), c.s("b")),
    "then_empty_chain": lambda c: c.s("a") | c.chain(),
    "chord_then": lambda c: c.chord([c.s("a"), c.s("b")], c.s("c")) | c.s("d"),
    "chord_then_group": lambda c: c.chord([c.s("a"), c.s("b")], c.s("c")) | c.group(c.s("d"), c.s("e")),
    "chord_then_group_of_one": lambda c: c.chord([c.s("a")], c.s("c")) | c.group(c.s("d")),
    "chord_then_empty": lambda c: c.chord([c.s("a")], c.s("c")) | c.group(),
    "chord_then_chain": lambda c: c.chord([c.s("a")], c.s("c")) | (c.s("d") | c.s("e")),
    "chord_then_chord": lambda c: c.chord([c.s("a")], c.s("c")) | c.chord([c.s("d")], c.s("e")),
    "then_chord": lambda c: c.s("x") | c.chord([c.s("a")], c.s("c")),
    "then_chord_then": lambda c: c.s("x") | c.chord([c.s("a")], c.s("c")) | c.s("d"),
    "then_chord_then_group": lambda c: c.s("x") | c.chord([c.s("a")], c.s("c")) | c.group(c.s("d"), c.s("e")),
    "then_chord_group_task": lambda c: (
        c.s("x") | c.chord([c.s("a")], c.s("c")) | c.group(c.s("d"), c.s("e")) | c.s("f")
    ),
    "then_chord_then_chord": lambda c: c.s("x") | c.chord([c.s("a")], c.s("c")) | c.chord([c.s("d")], c.s("e")),
    "raw_chord_group_then": lambda c: (
        c.chain(c.s("x"), c.chord([c.s("a")], c.s("c")), c.group(c.s("d"), c.s("e")), queue=None) | c.s("f")
    ),
    "group_in_group_then": lambda c: c.group(c.group(c.s("a"), c.s("b")) | c.s("c"), c.s("d")) | c.s("e"),
    "xmap": lambda c: c.xmap(c.s("add"), [1, 2, 3]),
    "xstarmap": lambda c: c.xstarmap(c.s("add"), [[1, 2], [3, 4]]),
    "chunks": lambda c: c.chunks(c.s("add"), [[1, 2], [3, 4], [5, 6]], 2),
    "chunks_generator": lambda c: c.chunks(c.s("add"), ([n, n] for n in range(5)), 2),
    "chunks_group": lambda c: c.chunks(c.s("add"), ([n, n] for n in range(5)), 2).group(),
    "chunks_in_chain": lambda c: c.s("a") | c.chunks(c.s("add"), [[1, 2], [3, 4]], 1).group() | c.s("b"),
    "map_in_group": lambda c: c.group(c.xmap(c.s("a"), [1]), c.xstarmap(c.s("b"), [[2]])) | c.s("c"),
    "map_set": lambda c: c.changed(c.xmap(c.s("a"), [1]), "set", queue="q"),
    "task_ids": lambda c: c.changed(c.s("a"), "set", task_id="one") | c.changed(c.s("b"), "set", task_id="two"),
}


@pytest.mark.parametrize("name", CANVASES)
def test_canvases_read_as_celerys(name: str) -> None:
    celerys, ours = both(CANVASES[name])
    assert ours == celerys


@pytest.mark.parametrize("name", [name for name in CANVASES if name != "chord_without_body"])
def test_what_is_written_is_read_again(name: str) -> None:
    celerys, ours = both(CANVASES[name])
    for written in (celerys, ours):
        again = Signature.from_dict(written)
        assert normal(again.to_dict()) == written
        assert again == written
        assert type(again).__name__ == KINDS.get(written["subtask_type"], "Signature")


KINDS = {"chain": "Chain", "group": "Group", "chord": "Chord"}

names = st.sampled_from("abcdef")
calls = st.tuples(st.just("s"), names) | st.tuples(st.just("si"), names)


def trees(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, max_size=3)
    return st.one_of(
        st.tuples(st.just("|"), inner, inner),
        st.tuples(st.just("|"), inner, inner),
        st.tuples(st.just("chain"), several),
        st.tuples(st.just("raw"), several),
        st.tuples(st.just("group"), several),
        st.tuples(st.just("generator"), st.lists(inner, min_size=1, max_size=3)),  # empty: we know, Celery does not
        st.tuples(st.just("chord"), several, inner),
        st.tuples(st.sampled_from(["link", "link_error"]), inner, calls),
    )


expressions = st.recursive(calls, trees, max_leaves=12)


def composed(api: Any, tree: Any) -> Any:
    kind, *parts = tree
    if kind in ("s", "si"):
        return getattr(api, kind)(*parts)
    if kind == "|":
        return composed(api, parts[0]) | composed(api, parts[1])
    if kind in ("link", "link_error"):
        return api.changed(composed(api, parts[0]), kind, composed(api, parts[1]))
    members = [composed(api, part) for part in parts[0]]
    match kind:
        case "chain":
            return api.chain(members)
        case "raw":
            return api.chain(members, priority=None)  # stays a chain, and none of its options could be lost
        case "group":
            return api.group(members)
        case "generator":
            return api.group(member for member in members)
    return api.chord(members, composed(api, parts[1]))


@settings(max_examples=400, deadline=None)
@given(expressions)
def test_expressions_read_as_celerys(tree: Any) -> None:
    celerys, ours = both(lambda api: composed(api, tree))
    assert celerys is IndexError or ours == celerys  # a link to nothing: ours is nothing, too
