"""Requests and replies on the wire, against what kombu wrote; and whom a request means."""

from __future__ import annotations

import base64
import json
import time
from contextlib import suppress

import pytest
from control_lab import golden
from hypothesis import given, settings
from hypothesis import strategies as st

from aioretryq import ProtocolError
from aioretryq.brokers.redis_history import history
from aioretryq.protocol.commands import BY_NAME, arguments_of
from aioretryq.protocol.control import (
    Address,
    Form,
    Request,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    jsonable,
    sender_of,
)
from aioretryq.protocol.envelope import marks
from aioretryq.protocol.event import decode_events
from aioretryq.protocol.nodes import matches
from aioretryq.protocol.task import decode_task

FORM = Form()
MESSAGES = golden("control_messages")


@pytest.mark.parametrize("name", MESSAGES)
def test_requests_of_celery_are_read(name):
    wrote = MESSAGES[name]["request"]
    request = decode_request(json.dumps(wrote["raw"]).encode(), FORM)
    assert request.method == wrote["body"]["method"]
    assert request.arguments == wrote["body"]["arguments"]
    assert list(request.destination or ()) == (wrote["body"]["destination"] or [])
    if "reply_to" in wrote["body"]:
        assert request.reply_to == Address(**wrote["body"]["reply_to"])
        assert request.origin == f"reply_to {request.reply_to.routing_key}, ticket {request.ticket}"
    assert request.clock == wrote["raw"]["headers"]["clock"]


@pytest.mark.parametrize("name", ["ping", "ping_dest", "revoke", "pattern2"])
def test_requests_are_written_as_celery_does(name):
    wrote = MESSAGES[name]["request"]
    request = decode_request(json.dumps(wrote["raw"]).encode(), FORM)
    ours = encode_request(request, "celery", FORM)
    document = json.loads(ours.body)
    assert ours.exchange == "celery.pidbox"
    assert document.keys() == wrote["raw"].keys()
    assert document["properties"].keys() == wrote["raw"]["properties"].keys()
    assert document["headers"].keys() >= wrote["raw"]["headers"].keys()
    again = decode_request(ours.body, FORM)
    assert (again.method, again.arguments, again.reply_to) == (request.method, request.arguments, request.reply_to)


@pytest.mark.parametrize("name", [name for name, case in MESSAGES.items() if "reply" in case])
def test_replies(name):
    wrote = MESSAGES[name]["reply"]
    reply = decode_reply(json.dumps(wrote["raw"]).encode(), FORM)
    assert reply.answers == wrote["body"]
    assert reply.ticket == wrote["raw"]["headers"]["ticket"]
    ((node, said),) = wrote["body"].items()
    request = Request(method="x", ticket=reply.ticket, reply_to=Address("reply.celery.pidbox", "oid"))
    ours = encode_reply(node, said, request, 4, FORM)
    assert (ours.exchange, ours.routing_key) == ("reply.celery.pidbox", "oid")
    document = json.loads(ours.body)
    assert document.keys() == wrote["raw"].keys()
    assert document["headers"].keys() == wrote["raw"]["headers"].keys()
    assert document["properties"].keys() == wrote["raw"]["properties"].keys()
    assert decode_reply(ours.body, FORM).answers == wrote["body"]


def test_a_request_is_stale_long_after_its_sender_has_stopped_waiting():
    now = time.time()
    assert not Request(method="ping", expires=None).stale
    assert not Request(method="ping", expires=now - 20).stale  # the sender's clock may be behind
    assert Request(method="ping", expires=now - 60).stale


@given(st.binary(max_size=300))
def test_garbage_is_no_request(data):
    with pytest.raises(ProtocolError):
        decode_request(data, FORM)
    assert sender_of(data)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("method", "arguments", "destination", "pattern", "matcher", "ticket", "reply_to")


@settings(max_examples=50)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, ANYTHING)), st.dictionaries(st.text(), ANYTHING))
def test_whatever_is_in_a_request_it_is_read_or_refused(body, headers):
    text = json.dumps({"body": json.dumps(body), "headers": headers, "properties": {}}).encode()
    try:
        request = decode_request(text, FORM)
    except ProtocolError:
        assert sender_of(text)
    else:
        assert isinstance(request.method, str)
        assert isinstance(request.arguments, dict)


def test_what_json_cannot_hold_is_shown_as_text():
    assert jsonable({"a": [1, {2: object}], "b": {1, 2}})["a"][1] == {"2": "<class 'object'>"}


@pytest.mark.parametrize(
    ("pattern", "matcher", "means"),
    [
        ("w1@lab", "glob", True),
        ("w*", "glob", True),
        ("w*", None, True),
        ("w[23]@*", "glob", False),
        (r"w\d@", "pcre", True),
        (r"w\d$", "pcre", False),
        ("(?:v|w)1@(lab|farm)$", "pcre", True),
        ("(x)?w1.*b", "pcre", True),
    ],
)
def test_patterns(pattern, matcher, means):
    assert matches("w1@lab", pattern, matcher) is means


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a*)*b",
        "(.|.)" * 30 + "x",
        ".*.*.*.*.*x",
        "(?x)(a*) *",
        "(",
        "a" * 300,
        "(.?.?)" * 9,
        "a{1,9999999999}",
    ],
)
def test_patterns_that_could_take_for_ever_are_refused_at_once(pattern):
    began = time.perf_counter()
    with pytest.raises(ProtocolError):
        matches("a" * 60 + "@host", pattern, "pcre")
    assert time.perf_counter() - began < 1


def test_unknown_matchers():
    with pytest.raises(ProtocolError, match="glob and pcre"):
        matches("w1@lab", "x", "soundex")


@pytest.mark.parametrize(
    ("command", "words", "arguments"),
    [
        ("ping", [], {}),
        ("rate_limit", ["app.add", "5/m"], {"task_name": "app.add", "rate_limit": "5/m"}),
        ("time_limit", ["app.add", "3", "5.5"], {"task_name": "app.add", "soft": 3.0, "hard": 5.5}),
        ("revoke", ["a", "b", "terminate=yes"], {"task_id": ["a", "b"], "terminate": True}),
        ("terminate", ["TERM", "a"], {"signal": "TERM", "task_id": ["a"]}),
        ("pool_grow", ["3"], {"n": 3}),
        ("autoscale", ["max=3"], {"max": 3}),
        ("revoke_by_stamped_headers", ["k=v"], {"headers": ["k=v"]}),
    ],
)
def test_words_of_a_command_line(command, words, arguments):
    assert arguments_of(BY_NAME[command], words) == arguments


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("ping", ["x"], "takes no arguments, not 'x'"),
        ("pool_grow", ["many"], "n is a whole number"),
        ("active", ["perhaps"], "safe is yes or no"),
        ("rate_limit", ["task_name=a"], "rate_limit is missing"),
        ("add_consumer", ["nonsense=a"], "it has no argument 'nonsense'"),
        ("autoscale", [], "max is missing"),
    ],
)
def test_words_that_do_not_fit(command, words, said):
    with pytest.raises(ValueError, match=said):
        arguments_of(BY_NAME[command], words)


def test_a_named_argument_does_not_take_the_place_of_the_next_word():
    assert arguments_of(BY_NAME["rate_limit"], ["task_name=a", "5/m"]) == {"task_name": "a", "rate_limit": "5/m"}


# -- what anybody may have written

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 2**63, 2**53, float("nan"), float("inf"), 1e308, -0.0])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["ping", "json", "\ud800", "1e999", "\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
HEADERS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("clock", "expires", "origin", "aioretryq_durable", "task", "id", "timelimit"), JSON),
)
BODY = JSON | st.fixed_dictionaries(
    {"method": JSON | st.just("ping")},
    optional=dict.fromkeys(("arguments", "destination", "pattern", "matcher", "ticket", "reply_to"), JSON),
)
PROPERTIES = st.fixed_dictionaries(
    {}, optional={"priority": JSON, "delivery_info": JSON | st.fixed_dictionaries({"aioretryq": JSON})}
)


def wrapped(headers, body, properties):
    """An envelope with a body that is one, most of the time."""
    data = json.dumps(body).encode()
    document = {"body": base64.b64encode(data).decode(), "content-type": "application/json", "headers": headers}
    document["content-encoding"] = "utf-8"
    document["properties"] = {**properties, "body_encoding": "base64"}
    return json.dumps(document).encode()


PAYLOADS = st.builds(wrapped, HEADERS, BODY, PROPERTIES) | JSON.map(lambda value: json.dumps(value).encode())


@settings(max_examples=300, deadline=None)
@given(PAYLOADS | st.binary(max_size=50))
def test_anything_is_a_request_or_refused(payload):
    try:
        request = decode_request(payload, FORM)
    except ProtocolError:
        pass  # as it should be
    else:
        assert request.stale in (True, False)
        assert request.expires is None or abs(request.expires) < 2**53
    assert sender_of(payload)


@settings(max_examples=300, deadline=None)
@given(PAYLOADS)
def test_nothing_else_comes_from_other_messages_either(payload):
    for read in (
        lambda: decode_reply(payload, FORM),
        lambda: decode_task(payload),
        lambda: decode_events(payload, now=1.0),
    ):
        with suppress(ProtocolError):
            read()
    assert all(0 <= value < 2**53 for value in marks(payload).values())
    assert history(payload).deliveries < 2**32
