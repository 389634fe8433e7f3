import json
import math
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json as kombu_json

from aioretryq.errors import EncodeError, ProtocolError
from aioretryq.protocol.jsontypes import dumps, loads

ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=30))])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=ZONES)
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES)
def test_round_trip(value):
    assert loads(dumps(value)) == value


@given(VALUES)
def test_kombu_reads_what_we_write(value):
    data = dumps(value)
    assert kombu_json.loads(data) == value
    assert json.loads(data) == json.loads(kombu_json.dumps(value))


@given(VALUES)
def test_we_read_what_kombu_writes(value):
    text = kombu_json.dumps(value)
    assert loads(text) == loads(text.encode()) == value


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_value_or_a_protocol_error(data):
    with suppress(ProtocolError):
        loads(data)


@given(
    st.sampled_from(["datetime", "date", "time", "decimal", "uuid", "bytes", "base64", "other", "", 5, None, []]),
    VALUES | st.dictionaries(st.sampled_from(["hex", "bytes", "int", "fields", "version"]), LEAVES),
)
def test_any_typed_value_is_a_value_or_a_protocol_error(kind, value):
    with suppress(ProtocolError):
        loads(dumps({"__type__": kind, "__value__": value}))


def test_corner_cases_are_those_of_celery():
    assert loads(dumps({1: "a", None: 2})) == {"1": "a", "null": 2}
    assert loads(dumps(2**200)) == 2**200
    assert math.isnan(loads(dumps(float("nan"))))
    assert loads(dumps(float("inf"))) == float("inf")
    assert loads(dumps((1, 2))) == [1, 2]
    assert loads(dumps("\ud800")) == "\ud800"


def test_extended_types_on_the_wire():
    assert dumps(UUID(int=5)) == b'{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000005"}}'
    assert dumps(Decimal("1.5")) == b'{"__type__": "decimal", "__value__": "1.5"}'
    assert dumps(b"\x00bytes") == b'{"__type__": "bytes", "__value__": "\\u0000bytes"}'
    assert dumps(b"\xff") == b'{"__type__": "base64", "__value__": "/w=="}'
    assert dumps(time(1, 2)) == b'{"__type__": "time", "__value__": "01:02:00"}'
    assert loads('{"__type__": "date", "__value__": "2030-01-01T00:00:00"}') == date(2030, 1, 1)
    assert loads('{"__type__": "datetime", "__value__": "2030-01-01T00:00:00Z"}') == datetime(2030, 1, 1, tzinfo=UTC)


def test_only_exactly_two_keys_make_a_type():
    for plain in ({"__type__": "date"}, {"__type__": "date", "__value__": "x", "more": 1}, {"__value__": 1}):
        assert loads(dumps(plain)) == plain


class Point:
    def __json__(self):
        return {"x": 1}


class Failing:
    def __json__(self):
        raise LookupError("not today")


class Endless:
    def __json__(self):
        return self


class OddDict(dict):
    def items(self):
        raise OSError("disk on fire")


def test_json_methods_are_honoured():
    assert loads(dumps([Point()])) == [{"x": 1}]


def nested():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    return deep


def cyclic():
    loop = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: {"ids": {1, 2}}, r"builtins\.set \(\{1, 2\}\).*a list for a set"),
        (object, r"builtins\.object"),
        (lambda: bytearray(b"x"), "bytearray"),
        (lambda: [Failing()], "Failing.*LookupError: not today"),
        (Endless, "Circular"),
        (lambda: {(1, 2): 3}, r"\{\(1, 2\): 3\}.*keys must be"),
        (cyclic, "Circular"),
        (nested, "Recursion"),
        (lambda: OddDict(a=1), "disk on fire"),
        (lambda: 10**5000, "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_named(make, named):
    with pytest.raises(EncodeError, match=named):
        dumps(make())


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"",
        b"{",
        b"[" * 100_000,
        b"1" * 5000,
        "\ufeff1",
        b'{"__type__": "nope", "__value__": 1}',
        b'{"a": 1} x',
    ],
)
def test_what_cannot_be_read_is_a_protocol_error(data):
    with pytest.raises(ProtocolError):
        loads(data)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just("\ud800"),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(ANY_JSON)
def test_two_codecs_and_one_meaning(value):
    """Whichever of the two does the work: the standard library's is the measure."""
    expected = repr(json.loads(json.dumps(value)))
    assert repr(json.loads(dumps(value))) == expected
    assert repr(loads(json.dumps(value).encode())) == expected
