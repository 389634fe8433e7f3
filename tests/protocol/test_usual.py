"""The usual message is read as `decode_task` reads it, and nothing passes that it would refuse."""

from __future__ import annotations

import json

import pytest
from golden_data import task_entries
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aioretryq.errors import ContentDisallowed, ProtocolError
from aioretryq.message import TaskMessage
from aioretryq.protocol import usual
from aioretryq.protocol.compression import MAX_SIZE
from aioretryq.protocol.envelope import text_of
from aioretryq.protocol.task import decode_task, encode_task

PLAIN = TaskMessage(id="1", task="add", args=[1], kwargs={"k": "v"}, root_id="0", origin="gen1@host")


def decode(payload, accept=("json",)):
    return usual.decode(payload, accept_content=accept, max_size=MAX_SIZE, security=None)


def told(function):
    try:
        return function()
    except ProtocolError as error:
        return type(error), str(error)


def document(message=PLAIN):
    return json.loads(encode_task(message, tag="t"))


def changed(path, value, message=PLAIN):
    found = document(message)
    *steps, last = path
    at = found
    for step in steps:
        at = at[step]
    at[last] = value
    return json.dumps(found).encode()


def test_the_usual_one_is_read_by_the_schema(monkeypatch):
    expected = decode_task(encode_task(PLAIN, tag="t"))
    monkeypatch.setattr(usual, "decode_task", None)
    assert decode(encode_task(PLAIN, tag="t")) == expected


@pytest.mark.parametrize(("raw", "body"), task_entries("task_messages_v2"))
def test_golden_messages(raw, body):
    payload = json.dumps(raw).encode()
    accepted = ("json", "pickle", "yaml", "msgpack")
    assert decode(payload, accepted) == decode_task(payload, accept_content=accepted)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just("1e999"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
PATHS = st.one_of(
    st.tuples(st.just("headers"), st.sampled_from([*sorted(document()["headers"]), "compression", "x"])),
    st.tuples(
        st.just("properties"),
        st.sampled_from(
            "priority delivery_mode delivery_info reply_to correlation_id body_encoding expiration".split()
        ),
    ),
    st.tuples(st.just("properties"), st.just("delivery_info"), st.sampled_from(["exchange", "routing_key", "x"])),
    st.tuples(st.sampled_from(["body", "content-type", "content-encoding", "headers", "properties", "extra"])),
)


@given(PATHS, ANY)
def test_whatever_a_value_is_the_schema_hides_nothing(path, value):
    payload = changed(path, value)
    assert shown(told(lambda: decode(payload))) == shown(told(lambda: decode_task(payload)))


def shown(found):
    """With the types of its values: 1 == 1.0 == True."""
    return repr(found)


@given(st.data())
def test_whatever_is_damaged_the_schema_hides_nothing(data):
    payload = bytearray(encode_task(PLAIN, tag="t"))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(payload)
    assert shown(told(lambda: decode(damaged))) == shown(told(lambda: decode_task(damaged)))


@given(st.lists(ANY), st.dictionaries(st.text(), ANY))
def test_any_arguments(args, kwargs):
    payload = encode_task(replace(PLAIN, args=args, kwargs=kwargs), tag="t")
    assert shown(decode(payload)) == shown(decode_task(payload))


@given(st.binary())
def test_garbage_is_refused(data):
    with pytest.raises(ProtocolError):
        decode(data)


def test_a_name_elsewhere_is_another_name():
    found = document()
    last = list(found["headers"])[-1]
    found["properties"] = {last: found["headers"].pop(last), **found["properties"]}
    payload = json.dumps(found).encode()
    assert told(lambda: decode(payload)) == told(lambda: decode_task(payload))


def test_json_has_to_be_accepted():
    with pytest.raises(ContentDisallowed):
        decode(encode_task(PLAIN, tag="t"), ("yaml",))


@pytest.mark.parametrize("name", ["chain", "callbacks", "errbacks", "chord"])
def test_what_follows_from_a_task_is_read(name, monkeypatch):
    call = {"task": "next", "args": [], "kwargs": {}, "options": {}}
    linked = encode_task(replace(PLAIN, **{name: call if name == "chord" else [call]}), tag="t")
    expected = decode_task(linked)
    monkeypatch.setattr(usual, "decode_task", None)
    assert decode(linked) == expected


@given(st.dictionaries(st.sampled_from(["chain", "callbacks", "errbacks", "chord", "x"]), ANY))
def test_whatever_is_to_follow(embed):
    payload = changed(("body",), text_of(json.dumps([[], {}, embed]).encode()).decode())
    assert shown(told(lambda: decode(payload))) == shown(told(lambda: decode_task(payload)))


@pytest.mark.parametrize("missing", ["content-type", "content-encoding"])
def test_another_client_may_leave_out_one_thing_and_add_another(missing):
    found = {name: value for name, value in document().items() if name != missing} | {"extra": 1}
    payload = json.dumps(found).encode()
    assert decode(payload) == decode_task(payload)


def part_of(chord):
    return encode_task(replace(PLAIN, group="g", chord=chord), tag="t")


def test_the_body_that_all_parts_of_a_header_carry_is_read_once():
    body = {"task": "body of very many", "args": [], "kwargs": {}, "options": {}}
    first, second = decode(part_of(body)).chord, decode(part_of(body)).chord
    assert first == body
    assert second is first
    assert usual.was_checked(first)
    assert not usual.was_checked(dict(first))


@pytest.mark.parametrize("broken", [{"task": 5}, {"task": "a", "options": {"link": 1}}, {"x": "y"}])
def test_what_is_no_signature_is_nothing_that_was_checked(broken):
    for _ in range(2):
        found = decode(part_of(broken)).chord
        assert found == broken
        assert not usual.was_checked(found)


def test_very_many_chords_are_forgotten_again():
    for number in range(3 * usual.KNOWN_CHORDS):
        payload = part_of({"task": f"body {number}"})
        assert decode(payload) == decode_task(payload)
    assert len(usual._shared) == len(usual._shared_by_id) <= usual.KNOWN_CHORDS


def test_a_long_one_is_not_kept():
    body = {"task": "long", "args": ["x" * usual.LONGEST_CHORD]}
    assert decode(part_of(body)).chord is not decode(part_of(body)).chord
