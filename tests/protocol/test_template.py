"""A template makes the messages that `encode_task` makes."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aioretryq import EncodeError
from aioretryq.message import TaskMessage
from aioretryq.protocol.task import decode_task, encode_task
from aioretryq.protocol.template import Template

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=80) | st.uuids(),
    lambda values: st.lists(values, max_size=20) | st.dictionaries(st.text(max_size=80), values, max_size=20),
    max_leaves=20,
)
MESSAGES = st.builds(
    TaskMessage,
    id=TEXTS,
    task=TEXTS,
    eta=st.none() | st.just("2030-01-01T00:00:00+00:00"),
    group=st.none() | TEXTS,
    group_index=st.none() | st.integers(0, 9),
    time_limit=st.none() | st.floats(1, 9),
    ignore_result=st.none() | st.booleans(),
    shadow=st.none() | TEXTS,
    origin=TEXTS,
    stamped_headers=st.none() | st.lists(TEXTS, max_size=3),
    stamps=st.dictionaries(TEXTS, TEXTS, max_size=3),
    callbacks=st.none() | st.just([{"task": "100%", "args": [], "kwargs": {}, "options": {}}]),
    headers=st.dictionaries(st.sampled_from(["tenant", "%b", "body"]), VALUES, max_size=3),
    reply_to=TEXTS,
    priority=st.integers(0, 9),
    exchange=TEXTS,
    routing_key=TEXTS,
    expiration=st.none() | st.just("1000"),
    content_type=st.sampled_from(["application/json", "application/x-python-serialize"]),
    compression=st.none() | st.just("zlib"),
)
ARGUMENTS = st.tuples(st.lists(VALUES, max_size=3), st.dictionaries(st.text(max_size=80), VALUES, max_size=3))


def made_by(template, task_id, arguments, **ids):
    return template.encode(task_id, arguments, tag="tag", **ids)


@given(MESSAGES, ARGUMENTS, TEXTS, st.none() | TEXTS, st.none() | TEXTS)
def test_the_same_messages(message, arguments, task_id, root_id, parent_id):
    args, kwargs = arguments
    template = Template(message, uuid.uuid4().hex)
    ids = {"root_id": root_id or None, "parent_id": parent_id}
    whole = replace(message, id=task_id, correlation_id=task_id, args=args, kwargs=kwargs, **ids)
    made = made_by(template, task_id, arguments, **ids)
    expected = encode_task(whole, tag="tag")
    assert json.loads(made) | {"body": 0} == json.loads(expected) | {"body": 0}
    accepted = ("json", "pickle")
    if task_id and message.task:
        assert decode_task(made, accept_content=accepted) == decode_task(expected, accept_content=accepted)


@pytest.mark.parametrize("text", ["100 %", "%b %(id)s", '"quoted"', "\ud800", "\x00", "ü"])
def test_texts_that_are_special_somewhere(text):
    message = TaskMessage(id="x", task="app.work", headers={"tenant": text}, origin="us")
    template = Template(message, uuid.uuid4().hex)
    made = made_by(template, "1", ((text,), {text: text}))
    whole = replace(message, id="1", correlation_id="1", args=[text], kwargs={text: text})
    assert decode_task(made) == decode_task(encode_task(whole, tag="tag"))


def test_a_value_that_cannot_be_serialised():
    template = Template(TaskMessage(id="x", task="app.work"), uuid.uuid4().hex)
    for arguments in (((object(),), {}), ((), {"x": object()})):
        with pytest.raises(EncodeError, match="object"):
            made_by(template, "1", arguments)
