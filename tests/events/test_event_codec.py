"""Events as bytes: what Celery wrote is read, ours look the same, and whatever else comes is refused."""

from __future__ import annotations

import json
import pickle

import pytest
from golden_events import GOLDEN, JSON
from hypothesis import given
from hypothesis import strategies as st

from aioretryq import EncodeError, ProtocolError
from aioretryq.errors import ContentDisallowed
from aioretryq.protocol import envelope
from aioretryq.protocol.clock import Clock
from aioretryq.protocol.event import (
    LARGEST,
    LONGEST,
    Event,
    decode_events,
    encode_event,
    encode_events,
    routing_key,
    sender_of,
)

EVENT = {"type": "task-started", "hostname": "w@h", "timestamp": 1.5, "uuid": "i", "clock": 3, "pid": 7}


def message(body: object, **headers: object) -> bytes:
    return envelope.encode(envelope.Envelope(json.dumps(body).encode(), headers=headers))


@pytest.mark.parametrize("case", GOLDEN)
def test_what_celery_wrote_is_read(case):
    found = GOLDEN[case]
    events = decode_events(json.dumps(found["raw"]).encode(), now=5.0)
    bodies = found["decoded_body"] if isinstance(found["decoded_body"], list) else [found["decoded_body"]]
    assert [{**event.as_dict()} for event in events] == bodies
    assert all(event.received == 5.0 for event in events)


@pytest.mark.parametrize("case", GOLDEN)
def test_ours_look_the_same(case):
    found = GOLDEN[case]
    bodies = found["decoded_body"] if isinstance(found["decoded_body"], list) else [found["decoded_body"]]
    key = found["raw"]["properties"]["delivery_info"]["routing_key"]
    assert key in (routing_key(bodies[0]["type"]), "task.multi")
    made = json.loads(
        encode_events(
            [encode_event(body) for body in bodies],
            hostname=bodies[0]["hostname"],
            exchange="celeryev",
            key=key,
        )
    )
    made["properties"]["delivery_tag"] = found["raw"]["properties"]["delivery_tag"]
    assert {**made, "body": ""} == {**found["raw"], "body": ""}
    written = json.loads(envelope.decode(json.dumps(made).encode()).body)
    assert (written if isinstance(written, list) else [written]) == bodies


def test_an_event_without_its_common_fields_gets_those_of_its_message():
    (event,) = decode_events(message({"type": "mine", "x": 1}, hostname="w@h"), now=5.0)
    assert event == Event(type="mine", hostname="w@h", timestamp=5.0, fields={"x": 1}, received=5.0)
    assert event.uuid is None


@pytest.mark.parametrize(
    "body",
    [
        None,
        7,
        "worker-online",
        [1],
        [[EVENT]],
        {},
        {**EVENT, "type": 7},
        {**EVENT, "type": ""},
        {**EVENT, "type": "x" * (LONGEST + 1)},
        {**EVENT, "hostname": ["w"]},
        {**EVENT, "hostname": "h" * (LONGEST + 1)},
        {**EVENT, "timestamp": "yesterday"},
        {**EVENT, "timestamp": 10**400},
        {**EVENT, "timestamp": True},
        {**EVENT, "utcoffset": {}},
        {**EVENT, "pid": "1; rm -rf /"},
        {**EVENT, "clock": -1},
        {**EVENT, "clock": 2**63},
        {**EVENT, "clock": 1.5},
        {**EVENT, "uuid": None},
        {**EVENT, "uuid": ["i"]},
        [EVENT, {**EVENT, "uuid": 7}],
    ],
    ids=lambda body: str(body)[:60],
)
def test_what_is_no_event_is_refused(body):
    found = decode_events(message(body, hostname="w@h"), now=5.0)
    assert isinstance(found[-1], ProtocolError)
    assert all(isinstance(each, Event) for each in found[:-1])  # the others of the list are read


def test_nan_is_no_time():
    (refused,) = decode_events(message({**EVENT, "timestamp": float("nan")}), now=5.0)
    assert isinstance(refused, ProtocolError)


def test_too_much_is_refused_before_it_is_read():
    with pytest.raises(ProtocolError, match="too large"):
        decode_events(b"x" * (2 * LARGEST + 1), now=5.0)


class Bomb:
    exploded = False

    def __reduce__(self):
        return setattr, (Bomb, "exploded", True)


@pytest.mark.parametrize("accepted", ["json", "yaml", "msgpack"])
def test_a_pickle_is_never_loaded(accepted):
    body = pickle.dumps(Bomb())
    payload = envelope.encode(
        envelope.Envelope(body, "application/x-python-serialize", "binary", {"hostname": "e@h"})
    )
    with pytest.raises(ContentDisallowed):
        decode_events(payload, accept_content={"json", accepted}, now=5.0)
    assert not Bomb.exploded
    assert sender_of(payload) == "'e@h'"


ODD_EVENTS = st.builds(dict, st.fixed_dictionaries({}, optional=dict.fromkeys(EVENT, JSON)))


@given(st.binary() | (JSON | ODD_EVENTS | st.lists(ODD_EVENTS, max_size=3)).map(message))
def test_any_bytes_are_events_or_refused(payload):
    sender_of(payload)
    try:
        events = decode_events(payload, now=5.0)
    except ProtocolError:
        return
    for event in events:
        if isinstance(event, ProtocolError):
            continue
        again = encode_events([encode_event(event.as_dict())], hostname="w@h", exchange="e", key="k")
        (same,) = decode_events(again, now=5.0)
        assert (same.type, same.hostname, same.clock, same.uuid) == (
            event.type,
            event.hostname,
            event.clock,
            event.uuid,
        )


def test_long_texts_are_cut_in_the_middle():
    found = json.loads(encode_event({**EVENT, "traceback": "begin" + "x" * 10 * LONGEST + "end"}))
    assert len(found["traceback"]) < LONGEST + 10
    assert found["traceback"].startswith("begin")
    assert found["traceback"].endswith("end")


def test_what_cannot_be_sent_is_an_error():
    with pytest.raises(EncodeError):
        encode_event({**EVENT, "result": object()})
    with pytest.raises(EncodeError, match="at most"):
        encode_event({**EVENT, "result": ["x" * 1000] * 2000})
    with pytest.raises(EncodeError, match="uuid"):
        encode_event({**EVENT, "uuid": "x" * 20_000})


@pytest.mark.parametrize("odd", ["\ud800", 2**70, float("nan"), {1: 2}])
def test_odd_values_can_be_sent(odd):
    assert json.loads(encode_event({**EVENT, "result": odd}))["uuid"] == "i"


def test_the_clock_never_goes_back_and_ignores_nonsense():
    clock = Clock()
    assert (clock.forward(), clock.adjust(10), clock.adjust(3), clock.value) == (1, 11, 12, 12)
    for nonsense in (None, "7", 2**48, -1, True, [], 1.5):
        assert clock.adjust(nonsense) == clock.value
    assert clock.value == 19
