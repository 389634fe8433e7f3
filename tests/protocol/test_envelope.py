import base64
import json
import math
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import pytest
from golden_data import load, task_entries
from hypothesis import given
from hypothesis import strategies as st

from aioretryq.errors import EncodeError, ProtocolError
from aioretryq.protocol import envelope
from aioretryq.protocol.envelope import Envelope, mark_redelivered

ENTRIES = task_entries("task_messages_v2") + task_entries("task_messages_v1")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def document(**changes):
    return json.dumps({"body": "e30=", "properties": {"body_encoding": "base64"}, "headers": {}, **changes}).encode()


@pytest.mark.parametrize(("raw", "body"), ENTRIES)
def test_golden_messages_survive_a_round_trip(raw, body):
    found = envelope.decode(json.dumps(raw).encode())
    assert found.body == base64.b64decode(raw["body"])
    assert found.headers == raw["headers"]
    assert json.loads(envelope.encode(found)) == raw


def test_bodies_come_in_base64_or_as_text():
    for encoding, body in (("base64", "e30="), ("utf-8", "{}"), (None, "{}")):
        assert envelope.decode(document(body=body, properties={"body_encoding": encoding})).body == b"{}"
    assert envelope.decode(document(body="{}", properties={})).body == b"{}"
    assert envelope.decode(document(body="{}", properties=None, headers=None)).headers == {}


def test_unknown_keys_are_kept():
    found = envelope.decode(document(trace="x", **{"content-type": "a/b", "content-encoding": "binary"}))
    assert found.extra == {"trace": "x"}
    assert envelope.decode(envelope.encode(found)) == found


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\x00",
        b"null",
        b"[]",
        b"5",
        b"{}",
        b"[" * 100_000,
        b'{"body": {}}',
        document(body=None),
        document(body="a"),
        document(body="\u00e9"),
        document(body="\ud800", properties={}),
        document(headers=[]),
        document(properties="x"),
        document(properties={"body_encoding": "rot13"}),
        document(properties={"body_encoding": []}),
        document(**{"content-type": 5}),
        document(**{"content-encoding": []}),
    ],
)
def test_garbage_is_a_protocol_error(payload):
    with pytest.raises(ProtocolError, match=r"\w{3}"):
        envelope.decode(payload)
    assert mark_redelivered(payload) == payload


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_envelope_or_a_protocol_error(payload):
    with suppress(ProtocolError):
        envelope.decode(payload)
    mark_redelivered(payload)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("body", "headers", "properties", "content-type", "content-encoding", "x"), JSON),
    )
)
def test_any_document_is_an_envelope_or_a_protocol_error(value):
    payload = json.dumps(value).encode()
    with suppress(ProtocolError):
        found = envelope.decode(payload)
        assert json.dumps(found.headers) == json.dumps(value.get("headers") or {})
        marked = envelope.decode(mark_redelivered(payload))
        assert marked.headers["redelivered"] is marked.properties["delivery_info"]["redelivered"] is True


@given(st.dictionaries(st.text(), JSON))
def test_any_header_survives(headers):
    found = envelope.decode(envelope.encode(Envelope(b"x", headers=headers)))
    assert json.dumps(found.headers) == json.dumps(headers)  # compared as text, because NaN is not NaN


def test_headers_may_hold_what_orjson_cannot():
    headers = {
        "large": [2**70, -(2**70)],
        "nan": float("nan"),
        "when": datetime(2030, 1, 1, tzinfo=UTC),
        "id": UUID(int=5),
        "surrogate": "\ud800",
        "nested": {"deep": [{"er": 2**64}]},
    }
    found = envelope.decode(envelope.encode(Envelope(b"x", headers=headers))).headers
    assert math.isnan(found.pop("nan"))
    assert math.isnan(headers.pop("nan"))
    assert found == headers
    assert envelope.decode(envelope.encode(Envelope(b"", headers={"k": {1: 2}}))).headers == {"k": {"1": 2}}


def test_headers_that_json_cannot_hold_are_named():
    with pytest.raises(EncodeError, match="set"):
        envelope.encode(Envelope(b"", headers={"tags": {"a"}}))


def test_marking_sets_both_flags_and_changes_nothing_else():
    raw = load("unacked")["unacked"]["ebcb25b5-a188-4ff5-b217-5124b923fe06"][0]
    payload = json.dumps(raw).encode()
    marked = mark_redelivered(payload)
    raw["headers"]["redelivered"] = True
    raw["properties"]["delivery_info"]["redelivered"] = True
    assert json.loads(marked) == raw
    assert mark_redelivered(marked) == marked


def test_marking_makes_up_for_missing_delivery_info():
    marked = mark_redelivered(document(properties={"body_encoding": "base64", "delivery_info": None}))
    assert json.loads(marked)["properties"]["delivery_info"] == {"redelivered": True}
