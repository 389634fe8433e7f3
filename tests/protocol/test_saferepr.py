import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioretryq.protocol.saferepr import saferepr


class Broken:
    def __repr__(self):
        raise RuntimeError("no repr")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.tuples(inner)
        | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


@given(values)
def test_it_is_repr_while_that_is_short(value):
    expected = repr(value)
    if len(expected) <= 1024:
        assert saferepr(value) == expected
    else:
        assert saferepr(value).endswith("...")


@given(values, st.integers(0, 50))
def test_it_is_never_longer_than_the_limit(value, limit):
    assert len(saferepr(value, limit)) <= limit


@pytest.mark.parametrize(
    "value", [set(), {1}, frozenset(), frozenset({1}), (), (1,), [], {}, (2, 3), {"x": 2}, {1: 2}]
)
def test_containers_look_as_usual(value):
    assert saferepr(value) == repr(value)


@pytest.mark.parametrize("value", [Broken(), [Broken()], {"a": Broken()}, (1, Broken()), (1.5, [Broken()])])
def test_a_broken_repr_does_not_break_it(value):
    assert "repr failed" in saferepr(value)


def test_an_integer_too_long_to_print_does_not_break_it():
    assert saferepr((10**5000,)) == "<tuple: repr failed>"


def test_cycles_end():
    loop = [1]
    loop.append(loop)
    assert saferepr(loop) == repr(loop) == "[1, [...]]"
    table = {}
    table["self"] = table
    assert saferepr(table) == "{'self': {...}}"


def test_huge_values_are_read_only_as_far_as_needed():
    huge = [["x" * 100_000_000], list(range(5_000_000))]
    before = time.process_time()
    assert saferepr(huge, 100) == "[['" + "x" * 94 + "..."
    assert saferepr(huge[1], 13) == "[0, 1, 2, ..."
    assert time.process_time() - before < 0.1


def test_deep_values_do_not_recurse_for_ever():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert saferepr(deep) == "[" * 21 + "..." + "]" * 21
