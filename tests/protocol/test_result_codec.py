import base64
import bz2
import json
import re
import zlib
from contextlib import suppress

import pytest
from celery.app.base import Celery
from golden_data import load, result_documents
from hypothesis import given
from hypothesis import strategies as st

from aioretryq.errors import EncodeError, ProtocolError, RemoteTaskError, TaskRevokedError
from aioretryq.protocol.exceptions import exception_to_data
from aioretryq.protocol.result import ResultDocument, decode_result, encode_result, exception_of, status_of, value_of
from aioretryq.states import WITH_EXCEPTION

MARK = b"\x00celery-compressed\x00"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("stored", result_documents())
def test_golden_documents_are_written_as_celery_wrote_them(stored):
    data = json.dumps(stored).encode()
    found = decode_result(data)
    assert (found.task_id, found.status, found.result) == (stored["task_id"], stored["status"], stored["result"])
    again = encode_result(found)
    assert list(json.loads(again).items()) == list(stored.items())
    assert status_of(data) == status_of(again) == stored["status"]


def test_a_compressed_document():
    data = base64.b64decode(load("results")["SUCCESS:compressed(result_compression=zlib)"]["value_base64"])
    found = decode_result(data)
    assert (found.task_id, found.status, list(found.result)) == ("cmp-id", "SUCCESS", ["x"])
    assert json.loads(encode_result(found)) == json.loads(zlib.decompress(data.split(b"\x00", 3)[3]))
    assert status_of(data) == "SUCCESS"
    packed = MARK + b"application/x-bz2\x00" + bz2.compress(encode_result(found))
    assert decode_result(packed) == found


def test_the_document_of_a_group_is_not_one_of_a_task():
    stored = json.dumps(load("results")["GROUP_META"]["value"]).encode()
    with pytest.raises(ProtocolError, match="no status"):
        decode_result(stored)
    assert status_of(stored) is None


def test_scripts_can_rely_on_the_beginning():
    for status in ("SUCCESS", "PROGRESS", "MY STATE"):
        data = encode_result(ResultDocument(task_id="i", status=status, result={"status": "other"}))
        assert re.match(rb'\{"status": ?"%s"' % status.encode(), data)


def test_extended_fields_are_written_only_when_given():
    plain = json.loads(encode_result(ResultDocument(task_id="i", status="SUCCESS")))
    assert list(plain) == ["status", "result", "traceback", "children", "date_done", "task_id"]
    extended = json.loads(encode_result(ResultDocument(task_id="i", status="SUCCESS", name="t")))
    assert list(extended)[5:] == ["name", "args", "kwargs", "worker", "retries", "queue", "task_id"]


def test_extended_arguments_never_break_a_result():
    sent = ResultDocument(task_id="i", status="SUCCESS", result=1, name="t", args=[{1, 2}], kwargs={"a": 1})
    found = decode_result(encode_result(sent))
    assert (found.result, found.args, found.kwargs) == (1, "[{1, 2}]", {"a": 1})
    with pytest.raises(EncodeError, match="set"):
        encode_result(ResultDocument(task_id="i", status="SUCCESS", result={1, 2}, name="t", args=[{1, 2}]))


def test_extra_cannot_replace_what_is_known():
    sent = ResultDocument(
        task_id="i", status="SUCCESS", result=1, extra={"status": "FAILURE", "task_id": "x", "k": 1}
    )
    found = decode_result(encode_result(sent))
    assert (found.status, found.task_id, found.extra) == ("SUCCESS", "i", {"k": 1})


def test_values_and_exceptions():
    done = ResultDocument(task_id="i", status="SUCCESS", result={"exc_type": "ValueError"})
    assert value_of(done) == {"exc_type": "ValueError"}
    assert exception_of(done) is None
    revoked = ResultDocument(task_id="i", status="REVOKED", result=exception_to_data(TaskRevokedError("expired")))
    assert isinstance(value_of(revoked), TaskRevokedError)
    assert str(exception_of(revoked)) == "expired"
    old = decode_result(b'{"status": "FAILURE", "result": "it broke"}')
    assert type(value_of(old)) is RemoteTaskError
    assert (str(value_of(old)), old.task_id) == ("it broke", "")


def test_extended_types_in_results():
    stored = b'{"status": "SUCCESS", "result": {"__type__": "bytes", "__value__": "x"}, "task_id": "i"}'
    assert decode_result(stored).result == b"x"
    dated = b'{"status": "SUCCESS", "date_done": {"__type__": "datetime", "__value__": "2030-01-01T00:00:00"}}'
    assert decode_result(dated).date_done == "2030-01-01T00:00:00"


def test_fields_of_the_wrong_type_do_not_hide_a_result():
    found = decode_result(b'{"status": "SUCCESS", "result": 1, "children": 5, "traceback": [], "retries": "x"}')
    assert (found.result, found.children, found.traceback, found.retries) == (1, None, "[]", None)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b'{"status": "SUCCESS", broken after that', "SUCCESS"),
        (b'{"status":"SUCCESS"}', "SUCCESS"),
        (b'{"result": 1, "status": "RETRY"}', "RETRY"),
        (b'{"status": "\\u0041"}', "A"),
        (b'{"status": "' + b"x" * 100 + b'"}', "x" * 100),
        (b'{"status": "SUC', None),
        (b'{"status": "\xff"}', None),
        (b'{"status": 5}', None),
        (b"[]", None),
        (b"", None),
        (b"\xff", None),
        (MARK, None),
        (MARK + b"application/zstd\x00x", None),
        (b"\x80\x04", None),
        (b"\x80\x04\x8c\x06status\x8c\x04", None),
        (b"\x86\xa6status\xa7SUCC", "SUCC"),
        (b"children: null\n", None),
    ],
)
def test_status_of(data, status):
    assert status_of(data) == status


@given(st.binary() | st.binary().map(MARK.__add__) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_result_or_a_protocol_error(data):
    with suppress(ProtocolError):
        decode_result(data)
    status_of(data)


@given(st.dictionaries(st.sampled_from("status result children date_done args retries extra task_id".split()), JSON))
def test_any_document_is_a_result_or_a_protocol_error(document):
    data = json.dumps(document).encode()
    with suppress(ProtocolError):
        found = decode_result(data)
        assert status_of(data) == found.status
        assert (exception_of(found) is None) == (found.status not in WITH_EXCEPTION)
        assert status_of(encode_result(found)) == found.status


@given(JSON)
def test_celery_reads_our_results(value):
    backend = Celery(backend="cache+memory://", set_as_current=False).backend
    sent = ResultDocument(task_id="i", status="SUCCESS", result=value, date_done="2026-11-21T00:03:41+00:00")
    assert json.dumps(backend.decode_result(encode_result(sent))["result"]) == json.dumps(value)
