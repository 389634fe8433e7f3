"""What an entry says, which ones are meant, and what is sent again: no broker needed."""

from __future__ import annotations

import json
import pickle
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letters import letter, task_payload

from aioretryq.dead_messages import UNREADABLE, Selection, first_attempt, read_entry
from aioretryq.errors import ConfigError
from aioretryq.message import DeadEntry
from aioretryq.protocol import envelope
from aioretryq.protocol.deadletter import encode_dead_letter, entry_id
from aioretryq.protocol.task import decode_task

NOW = 1_700_000_000.0
GOLDEN = Path(__file__).parent.parent / "golden" / "task_messages_v1.json"
OLD = [raw["raw"] for case in json.loads(GOLDEN.read_text()).values() for raw in case["keys"]["celery"]["entries"]]


def found(**fields):
    return read_entry(DeadEntry(entry_id(NOW - 60, "x"), encode_dead_letter(letter(**fields))), NOW)


def test_an_entry_is_read_with_its_age():
    message = found(queue="mail", attempts=4)

    assert (message.id[-2:], message.queue, message.attempts, message.readable) == ("-x", "mail", 4, True)
    assert message.age == pytest.approx(60)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[1]",
        b"{}",
        b'{"payload": 1}',
        b"[" * 100_000,
        b'{"payload": "", "reason": 1, "queue": "q", "time": 1, "worker": "w"}',
        b'{"payload": "", "reason": "r", "queue": null, "time": 1, "worker": "w"}',
        b'{"payload": "", "reason": "r", "queue": "q", "time": "noon", "worker": "w"}',
        b'{"payload": "", "reason": "r", "queue": "q", "time": NaN, "worker": "w"}',
        b'{"payload": "", "reason": "r", "queue": "q", "time": 1, "worker": "w", "errors": [1]}',
        b'{"payload": "", "reason": "r", "queue": "q", "time": 1, "worker": "w", "attempts": "2"}',
    ],
)
def test_an_entry_that_cannot_be_read_says_so_and_keeps_its_bytes(content):
    message = read_entry(DeadEntry(entry_id(NOW, "x"), content), NOW)

    assert (message.readable, message.reason, message.payload) == (False, UNREADABLE, content)
    assert message.error


@given(st.text(max_size=30), st.binary(max_size=200))
def test_nothing_is_raised_for_any_entry(name, content):
    assert read_entry(DeadEntry(name, content), NOW).payload == content


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ({}, True),
        ({"task": None, "queue": None, "reason": None}, True),
        ({"task": "app.mail.send"}, True),
        ({"task": "app.mail.*"}, True),
        ({"task": "app.mail"}, False),
        ({"task": "APP.*"}, False),
        ({"queue": "ma?l"}, True),
        ({"queue": "m", "task": "*"}, False),
        ({"reason": "retries"}, True),
        ({"reason": "retries exhausted"}, True),
        ({"reason": "exhausted"}, False),
    ],
)
def test_filters(filters, fits):
    message = found(task="app.mail.send", queue="mail", reason="retries exhausted")

    assert Selection.of(filters, NOW).fits(message) is fits


def test_a_message_without_a_task_fits_no_name():
    assert not Selection.of({"task": "?*"}, NOW).fits(found(task=None))
    assert Selection.of({"task": ""}, NOW).fits(found(task=None))


def test_ages_become_a_range_of_ids():
    chosen = Selection.of({"older_than": 60, "newer_than": timedelta(hours=1)}, NOW)

    inside, too_new, too_old = (entry_id(NOW - ago, "x") for ago in (61, 59, 3601))
    assert chosen.until is not None
    assert chosen.after < inside <= chosen.until
    assert too_new > chosen.until
    assert too_old <= chosen.after
    assert Selection.of({"older_than": 60, "up_to": too_old}, NOW).until == too_old


@pytest.mark.parametrize(
    "filters", [{"tasks": "x"}, {"task": 1}, {"older_than": "2h"}, {"newer_than": -1}, {"older_than": float("nan")}]
)
def test_filters_that_make_no_sense(filters):
    with pytest.raises(ConfigError, match=next(iter(filters))):
        Selection.of(filters, NOW)


def again(payload, queue=None):
    return first_attempt(payload, tag="new-tag", now=NOW, queue=queue)


def test_a_task_goes_as_a_new_first_attempt():
    sent = task_payload(
        retries=4,
        eta="2023-01-01T00:00:00+00:00",
        expires="2023-01-01T00:00:00+00:00",
        headers={"aioretryq_errors": [{"attempt": 1}], "tenant": "a"},
        time_limit=3,
        routing_key="celery",
    )
    payload, task_id = again(envelope.mark_redelivered(sent, deliveries=3))
    message = decode_task(payload)

    assert task_id == "t1"
    assert (message.id, message.task, message.args, message.time_limit) == ("t1", "app.add", [2, 3], 3)
    assert (message.retries, message.eta, message.expires, message.headers) == (0, None, None, {"tenant": "a"})
    assert b"redelivered" not in payload
    assert not envelope.marks(payload)
    assert envelope.decode(payload).properties["delivery_tag"] == "new-tag"
    assert message.routing_key == "celery"


def test_what_has_not_expired_still_may():
    payload, _ = again(task_payload(expires="2099-01-01T00:00:00+00:00"))

    assert decode_task(payload).expires == "2099-01-01T00:00:00+00:00"


def test_to_another_queue():
    assert decode_task(again(task_payload(routing_key="celery"), "retry")[0]).routing_key == "retry"


def test_arguments_that_nobody_here_may_read_go_unchanged():
    sent = envelope.decode(task_payload(retries=3))
    body = pickle.dumps([(1,), {}, {}])
    pickled = envelope.Envelope(body, "application/x-python-serialize", "binary", sent.headers, sent.properties)
    payload, task_id = again(envelope.encode(pickled))
    after = envelope.decode(payload)

    assert task_id == "t1"
    assert (after.body, after.content_type, after.headers["retries"]) == (body, pickled.content_type, 0)


@pytest.mark.parametrize("raw", OLD)
def test_old_messages_of_celery_too(raw):
    payload = json.dumps(raw).encode()
    before = decode_task(payload)
    after, task_id = again(payload, "elsewhere")
    message = decode_task(after)

    assert task_id == before.id
    assert (message.id, message.task, message.args, message.kwargs) == (
        before.id,
        before.task,
        before.args,
        before.kwargs,
    )
    assert (message.retries, message.eta, message.routing_key) == (0, None, "elsewhere")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_task_go_as_they_are(payload):
    assert again(payload) == (payload, None)


@pytest.mark.parametrize("document", [{}, {"body": "e30="}, {"body": "x", "headers": {"task": 1, "id": "x"}}])
def test_neither_do_envelopes_without_a_task(document):
    payload = json.dumps(document).encode()

    assert again(payload, "other") == (payload, None)


def test_fields_of_a_newer_writer_are_left_out():
    content = b'{"payload": "YQ==", "reason": "r", "queue": "q", "time": 1, "worker": "w", "of the future": 1}'
    found = read_entry(DeadEntry("0000000000000001-a", content), 2.0)
    assert (found.readable, found.payload, found.reason) == (True, b"a", "r")
