import base64
import bz2
import json
import lzma
import pickle
import zlib
from contextlib import suppress

import pytest
from golden_data import load, task_entries
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aioretryq.errors import ContentDisallowed, EncodeError, ProtocolError
from aioretryq.message import TaskMessage
from aioretryq.protocol.task import CONTENT_TYPES, decode_task, encode_task

BOTH = ("json", "pickle")
PLAIN_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def message(body=((), {}, PLAIN_EMBED), headers=None, content_type="application/json", **properties):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    document = {
        "body": base64.b64encode(data).decode(),
        "content-type": content_type,
        "content-encoding": "utf-8",
        "headers": {"task": "t", "id": "i"} if headers is None else headers,
        "properties": {"body_encoding": "base64", "delivery_tag": "d", **properties},
    }
    return json.dumps(document).encode()


def v2(**headers):
    return message(headers={"task": "t", "id": "i", **headers})


def loaded(document):
    """The document with its body as a value: how a body is compressed or pickled is not compared."""
    body = base64.b64decode(document["body"])
    if document["headers"].get("compression") == "application/x-gzip":
        body = zlib.decompress(body)
    if document["content-type"] == "application/x-python-serialize":
        args, kwargs, embed = pickle.loads(body)
        return {**document, "body": [list(args), kwargs, embed]}
    return {**document, "body": json.loads(body)}


@pytest.mark.parametrize(("raw", "body"), task_entries("task_messages_v2"))
def test_golden_messages_are_written_as_celery_wrote_them(raw, body):
    found = decode_task(json.dumps(raw).encode(), accept_content=BOTH)
    assert (found.id, found.task) == (raw["headers"]["id"], raw["headers"]["task"])
    again = json.loads(encode_task(found, tag=raw["properties"]["delivery_tag"]))
    assert loaded(again) == loaded(raw)
    assert list(again["headers"]) == list(raw["headers"])


@pytest.mark.parametrize(("raw", "body"), task_entries("task_messages_v1"))
def test_golden_messages_of_protocol_1(raw, body):
    found = decode_task(json.dumps(raw).encode())
    assert (found.id, found.task, found.args, found.kwargs) == (
        body["id"],
        body["task"],
        body["args"],
        body["kwargs"],
    )
    assert [found.time_limit, found.soft_time_limit] == body["timelimit"]
    assert (found.eta, found.expires, found.retries) == (body["eta"], body["expires"], body["retries"])
    assert (found.callbacks, found.errbacks, found.chord) == (body["callbacks"], body["errbacks"], body["chord"])
    assert (found.group, found.group_index) == (body["taskset"], body["group_index"])
    assert found.argsrepr == repr(tuple(body["args"]))
    assert found.expiration == raw["properties"].get("expiration")
    assert found.reply_to == raw["properties"]["reply_to"]
    again = decode_task(encode_task(found, tag="t"))
    assert again == replace(found, root_id=found.id)


def test_the_message_a_worker_holds():
    (payload, exchange, routing_key) = load("unacked")["unacked"]["ebcb25b5-a188-4ff5-b217-5124b923fe06"]
    found = decode_task(json.dumps(payload).encode())
    assert found.args == [5, 5]
    assert found.eta == "2026-11-21T00:03:55.627155+00:00"
    assert (found.exchange, found.routing_key) == (exchange, routing_key)


def test_what_a_client_always_fills_in_is_filled_in():
    document = json.loads(encode_task(TaskMessage(id="i", task="t", args=[2, 3]), tag="d"))
    headers, properties = document["headers"], document["properties"]
    assert (headers["root_id"], headers["argsrepr"], headers["kwargsrepr"]) == ("i", "(2, 3)", "{}")
    assert properties == {
        "correlation_id": "i",
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "priority": 0,
        "delivery_tag": "d",
        "body_encoding": "base64",
    }


def test_everything_optional_may_be_null_or_missing():
    nothing = dict.fromkeys(
        "lang shadow eta expires group group_index retries timelimit root_id parent_id argsrepr kwargsrepr origin "
        "ignore_result replaced_task_nesting stamped_headers stamps".split()
    )
    nulls = message(
        [[], {}, None], {"task": "t", "id": "i", **nothing}, priority=None, delivery_mode=None, delivery_info=None
    )
    found = decode_task(nulls)
    assert found == replace(decode_task(message([[], {}, {}])), headers={"lang": None})
    assert (found.priority, found.delivery_mode, found.retries, found.ignore_result) == (0, 2, 0, None)
    assert (found.time_limit, found.chain, found.stamps, found.routing_key) == (None, None, {}, "celery")


def test_an_empty_chain_is_not_a_missing_one():
    assert decode_task(message([[], {}, {"chain": []}])).chain == []
    assert decode_task(message([[], {}, {"chain": None}])).chain is None


def test_a_single_callback_is_a_list_of_one():
    assert decode_task(message([[], {}, {"callbacks": {"task": "c"}}])).callbacks == [{"task": "c"}]


def test_unknown_headers_come_back_at_the_same_level():
    found = decode_task(v2(tenant="a", lang="js", periodic_task_name="p"))
    assert found.headers == {"tenant": "a", "lang": "js", "periodic_task_name": "p"}
    headers = json.loads(encode_task(found, tag="d"))["headers"]
    assert headers.items() >= found.headers.items()


def test_user_headers_cannot_change_the_message():
    theirs = {"id": "x", "compression": "application/x-gzip", "task": "evil", "redelivered": True, "ok": 1}
    found = decode_task(encode_task(TaskMessage(id="i", task="t", headers=theirs), tag="d"))
    assert (found.id, found.task, found.headers) == ("i", "t", {"ok": 1})


def test_redelivery_does_not_survive_a_retry():
    assert "redelivered" not in decode_task(v2(redelivered=True)).headers


def test_priorities_stay_in_range():
    assert [decode_task(message(priority=given)).priority for given in (-1, 0, 9, 255)] == [0, 0, 9, 9]


def test_a_hybrid_has_its_fields_in_the_body_and_headers_win():
    body = {"args": [1], "kwargs": {"a": 2}, "retries": 3, "eta": "2030-01-01T00:00:00", "callbacks": [{"task": "c"}]}
    found = decode_task(message(body, {"task": "t", "id": "i", "retries": 4, "tenant": "a"}))
    assert (found.args, found.kwargs, found.retries) == ([1], {"a": 2}, 4)
    assert (found.eta, found.callbacks, found.headers) == ("2030-01-01T00:00:00", [{"task": "c"}], {"tenant": "a"})


def test_protocol_1_without_utc_has_local_times():
    body = {"task": "t", "id": "i", "args": [], "kwargs": {}, "eta": "2030-01-01T00:00:00", "utc": False}
    eta = decode_task(message(body, {})).eta
    assert eta.startswith("2030-01-01T00:00:00")
    assert len(eta) == len("2030-01-01T00:00:00+00:00")


def test_protocol_1_may_leave_out_its_arguments():
    found = decode_task(message({"task": "t", "id": "i"}, {"tenant": "a"}))
    assert (found.args, found.kwargs, found.argsrepr, found.headers) == ([], {}, "()", {"tenant": "a"})


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (message(headers={"id": "i"}), "task"),
        (message(headers={"task": "t"}), "id"),
        (message(headers={"task": "", "id": "i"}), "task"),
        (message(headers={"task": "t", "id": 5}), "id"),
        (message({"args": [], "kwargs": {}}, {}), "id"),
        (message([[], {}]), "args, kwargs"),
        (message("text"), "args, kwargs"),
        (message(None), "args, kwargs"),
        (message([{}, {}, {}]), "arguments"),
        (message(["ab", {}, {}]), "arguments"),
        (message([[], [], {}]), "keyword"),
        (message([[], None, {}]), "keyword"),
        (message({"task": "t", "id": "i", "args": 5}, {}), "arguments"),
        (message({"task": "t", "id": "i", "kwargs": 5}, {}), "keyword"),
        (message([[], {}, []]), "third part"),
        (message([[], {}, {"chain": 5}]), "chain"),
        (message([[], {}, {"errbacks": ["name"]}]), "errbacks"),
        (message([[], {}, {"chord": []}]), "chord"),
        (v2(retries="1"), "retries"),
        (v2(retries=True), "retries"),
        (v2(group_index=1.5), "group_index"),
        (v2(eta="tomorrow"), "ISO 8601"),
        (v2(expires=60), "expires"),
        (v2(timelimit=5), "timelimit"),
        (v2(timelimit=[1]), "timelimit"),
        (v2(timelimit=["1", None]), "time limit"),
        (v2(timelimit=[float("nan"), None]), "time limit"),
        (v2(timelimit=[-1, None]), "time limit"),
        (v2(stamps=[]), "stamps"),
        (v2(stamped_headers={}), "stamped_headers"),
        (v2(group=5), "group"),
        (message(priority="high"), "priority"),
        (message(reply_to=5), "reply_to"),
        (message(expiration=[]), "expiration"),
        (message(delivery_info=[]), "delivery_info"),
        (message(delivery_info={"routing_key": 5}), "routing_key"),
        (v2(compression=5), "compression"),
        (v2(compression="application/x-snappy"), "snappy.*not supported"),
        (v2(compression="application/x-gzip"), "Broken"),
        (message(b"\xff"), "JSON"),
        (message(content_type="application/xml"), "task_serializer='json'"),
    ],
)
def test_what_is_no_task_is_a_protocol_error(payload, says):
    with pytest.raises(ProtocolError, match=says):
        decode_task(payload)


@given(
    st.dictionaries(
        st.sampled_from("task id eta expires retries timelimit group stamps compression lang origin".split()), JSON
    ),
    JSON | st.fixed_dictionaries({"args": JSON, "kwargs": JSON, "utc": JSON, "eta": JSON, "task": JSON, "id": JSON}),
    st.dictionaries(st.sampled_from("priority reply_to delivery_info expiration delivery_mode".split()), JSON),
)
def test_any_message_is_a_task_or_a_protocol_error(headers, body, properties):
    with suppress(ProtocolError):
        found = decode_task(message(body, headers, **properties), accept_content=BOTH)
        encode_task(found, tag="d")


@given(st.binary())
def test_any_bytes_are_a_task_or_a_protocol_error(data):
    for payload in (data, message(data, content_type=CONTENT_TYPES["pickle"])):
        with pytest.raises(ProtocolError):
            decode_task(payload, accept_content=("json",))
    with suppress(ProtocolError):  # `{}` is a body of protocol 1
        decode_task(message(data), accept_content=("json",))


@given(st.lists(JSON), st.dictionaries(st.text(), JSON), st.sampled_from(["json", "pickle"]))
def test_arguments_round_trip(args, kwargs, serializer):
    sent = TaskMessage(id="i", task="t", args=args, kwargs=kwargs, content_type=CONTENT_TYPES[serializer])
    found = decode_task(encode_task(sent, tag="d"), accept_content=BOTH)
    assert json.dumps([found.args, found.kwargs]) == json.dumps([args, kwargs])


class Explosive:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded that is not allowed",))


class Unpicklable:
    def __reduce__(self):
        raise OSError("no")


class Misread:
    def __reduce__(self):
        return (int, ("not a number",))


def test_pickle_is_refused_unless_allowed():
    payload = message(pickle.dumps(Explosive()), content_type="application/x-python-serialize")
    with pytest.raises(ContentDisallowed, match=r"pickle.*accept_content allows only json.*trust"):
        decode_task(payload)
    with pytest.raises(ContentDisallowed, match=r"json.*accept_content allows only nothing"):
        decode_task(message(), accept_content=())


def test_names_and_content_types_are_accepted():
    assert decode_task(message(), accept_content=["application/json"]).id == "i"
    sent = TaskMessage(id="i", task="t", args=[{1, 2}], content_type="application/x-python-serialize")
    payload = encode_task(sent, tag="d")
    assert json.loads(payload)["content-encoding"] == "binary"
    assert decode_task(payload, accept_content={"application/x-python-serialize"}).args == [{1, 2}]


def test_a_broken_pickle_is_a_protocol_error():
    for data in (b"", b"\x80", pickle.dumps(Misread())):
        with pytest.raises(ProtocolError, match="pickle"):
            decode_task(message(data, content_type="application/x-python-serialize"), accept_content=BOTH)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"args": [{1}]}, "set"),
        ({"args": [Unpicklable()], "content_type": "application/x-python-serialize"}, "cannot be pickled"),
        ({"content_type": "application/xml"}, "no serializer"),
        ({"compression": "snappy"}, "gzip, bzip2, lzma, brotli, zstd"),
    ],
)
def test_what_cannot_be_sent_is_named(change, says):
    with pytest.raises(EncodeError, match=says):
        encode_task(TaskMessage(id="i", task="t", **change), tag="d")


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("gzip", "application/x-gzip"),
        ("zlib", "application/x-gzip"),
        ("bzip2", "application/x-bz2"),
        ("lzma", "application/x-lzma"),
        ("xz", "application/x-lzma"),
    ],
)
def test_compressed_bodies(name, mime):
    payload = encode_task(TaskMessage(id="i", task="t", args=["x" * 10_000], compression=name), tag="d")
    assert len(payload) < 4000
    assert json.loads(payload)["headers"]["compression"] == mime
    found = decode_task(payload)
    assert (found.args, found.compression, found.headers) == (["x" * 10_000], mime, {})


@pytest.mark.parametrize("name", ["application/x-gzip", "application/x-bz2", "application/x-lzma"])
def test_a_decompression_bomb_is_refused(name):
    pack = {
        "application/x-gzip": zlib.compress,
        "application/x-bz2": bz2.compress,
        "application/x-lzma": lzma.compress,
    }
    data = pack[name](b" " * 10_000_000)
    with pytest.raises(ProtocolError, match="larger than 1,000,000 bytes"):
        decode_task(message(data, {"task": "t", "id": "i", "compression": name}), max_size=1_000_000)
    with pytest.raises(ProtocolError, match="ends too early"):
        decode_task(message(data[:-5], {"task": "t", "id": "i", "compression": name}))


def test_other_text_encodings():
    body = json.dumps([["\u00e9"], {}, {}], ensure_ascii=False)
    document = json.loads(message(body.encode("latin-1")))
    document["content-encoding"] = "ISO-8859-1"
    assert decode_task(json.dumps(document).encode()).args == ["\u00e9"]
    for encoding in ("zlib_codec", "utf-32", "\0"):
        document["content-encoding"] = encoding
        with pytest.raises(ProtocolError):
            decode_task(json.dumps(document).encode())
