"""Messages that look like earlier ones are read as `decode_task` reads them, or refused as it refuses them."""

from __future__ import annotations

import copy
import json

import pytest
from golden_data import task_entries
from hypothesis import given
from hypothesis import strategies as st

from aioretryq.errors import ContentDisallowed, ProtocolError
from aioretryq.message import TaskMessage
from aioretryq.protocol import familiar
from aioretryq.protocol.compression import MAX_SIZE
from aioretryq.protocol.task import decode_task, encode_task

PLAIN = TaskMessage(id="1", task="add", args=[1], kwargs={"k": "v"}, root_id="0", origin="gen1@host")


def decode(reader, payload, accept=("json",)):
    return reader.decode(payload, accept_content=accept, max_size=MAX_SIZE, security=None)


def told(function):
    try:
        return function()
    except ProtocolError as error:
        return type(error), str(error)


def trained(*payloads):
    reader = familiar.Reader()
    for payload in payloads:
        decode(reader, payload)
    return reader


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


def test_the_second_of_a_shape_is_familiar(monkeypatch):
    reader = trained(encode_task(PLAIN, tag="t"))
    other = encode_task(TaskMessage(id="2", task="mul", args=[{"x": 2}], root_id="0", origin="gen2@host"), tag="u")
    expected = decode_task(other)
    monkeypatch.setattr(familiar, "decode_task", None)
    assert decode(reader, other) == expected


@pytest.mark.parametrize(("raw", "body"), task_entries("task_messages_v2"))
def test_golden_messages_twice(raw, body):
    payload = json.dumps(raw).encode()
    accepted = ("json", "pickle", "yaml", "msgpack")
    reader = familiar.Reader()
    first = decode(reader, payload, accepted)
    assert decode(reader, payload, accepted) == first == decode_task(payload, accept_content=accepted)


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


@given(PATHS, ANY, ANY)
def test_whatever_a_value_is_a_familiar_shape_hides_nothing(path, value, earlier):
    """A message with that value, after one that differs in nothing but the value, of whatever type."""
    payload = changed(path, value)
    reader = trained(encode_task(PLAIN, tag="t"))
    told(lambda: decode(reader, changed(path, earlier)))
    told(lambda: decode(reader, payload))
    expected = told(lambda: decode_task(payload))
    assert told(lambda: decode(reader, payload)) == expected


@given(st.binary())
def test_garbage_is_refused(data):
    reader = trained(encode_task(PLAIN, tag="t"))
    with pytest.raises(ProtocolError):
        decode(reader, data)


def test_a_name_that_moves_is_another_shape():
    payload = encode_task(PLAIN, tag="t")
    reader, found = trained(payload), document()
    moved = copy.deepcopy(found)
    last = list(found["headers"])[-1]
    moved["properties"] = {last: moved["headers"].pop(last), **moved["properties"]}
    again = json.dumps(moved).encode()
    assert told(lambda: decode(reader, again)) == told(lambda: decode_task(again))


def test_json_has_to_be_accepted():
    payload = encode_task(PLAIN, tag="t")
    reader = trained(payload, payload)
    with pytest.raises(ContentDisallowed):
        decode(reader, payload, ("yaml",))


def test_what_follows_from_a_task_is_read():
    payload = encode_task(PLAIN, tag="t")
    reader = trained(payload, payload)
    call = {"task": "next", "args": [], "kwargs": {}, "options": {}}
    linked = encode_task(TaskMessage(id="1", task="add", args=[1], root_id="0", origin="o", chain=[call]), tag="t")
    assert decode(reader, linked).chain == [call]


def test_no_more_shapes_than_that_are_remembered(monkeypatch):
    monkeypatch.setattr(familiar, "REMEMBERED", 1)
    reader = trained(encode_task(PLAIN, tag="t"), changed(("headers", "group"), "g"))
    assert len(reader._shapes) == 1


@pytest.mark.parametrize("missing", ["content-type", "content-encoding"])
def test_another_client_may_leave_out_one_thing_and_add_another(missing):
    found = {name: value for name, value in document().items() if name != missing} | {"extra": 1}
    payload = json.dumps(found).encode()
    reader = trained(payload, payload)
    assert decode(reader, payload) == decode_task(payload)


@pytest.mark.parametrize("name", ["origin", "argsrepr", "kwargsrepr"])
def test_what_people_read_is_always_a_text(name):
    payload = changed(("headers", name), 5)
    reader = trained(payload, payload)
    assert decode(reader, payload) == decode_task(payload)
