"""Results in every serializer and compression, written and read by Celery's own backends and by ours."""

import base64
import datetime
import os
import pickle
import sys
import types
from contextlib import suppress
from decimal import Decimal

import celery.utils.serialization
import pytest
from celery.app.base import Celery
from forms import COMPRESSIONS, PLAIN
from hypothesis import given
from hypothesis import strategies as st
from keys import identity

from aioretryq import PayloadTooLarge, RemoteTaskError
from aioretryq.config import Settings
from aioretryq.errors import ContentDisallowed, EncodeError, ProtocolError
from aioretryq.protocol.exceptions import exception_to_data
from aioretryq.protocol.formats import result_format
from aioretryq.protocol.result import (
    ResultDocument,
    ResultFormat,
    decode_group,
    decode_result,
    encode_group,
    encode_result,
    exception_of,
    status_of,
    value_of,
)
from aioretryq.protocol.stored import kind_of

NAMES = ("json", "yaml", "msgpack", "pickle")
ALL = ResultFormat(accept=NAMES)
CHILD = (("c", None), None)


class Broken(Exception):
    """As users write them: the constructor wants something else than `args`."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")


class Picky(Exception):
    def __init__(self, code, reason):
        super().__init__(f"{reason} ({code})")


def backend(serializer, compression=None):
    app = Celery("t", backend="redis://", set_as_current=False)
    app.conf.update(
        result_serializer=serializer, result_compression=compression, accept_content=list(NAMES), result_extended=True
    )
    return app.backend


def theirs(result, status="SUCCESS", serializer="json", compression=None, **more):
    """The bytes that Celery puts into Redis."""
    writer = backend(serializer, compression)
    meta = writer._get_result_meta(writer.encode_result(result, status), status, None, None)
    data = writer.encode({**meta, "task_id": "i", **more})
    return data.encode() if isinstance(data, str) else data


def form(serializer, compression=None, **more):
    return ResultFormat(serializer=serializer, compression=compression, accept=NAMES, **more)


@pytest.mark.parametrize("compression", [None, *COMPRESSIONS])
@pytest.mark.parametrize("serializer", NAMES)
class TestBothWays:
    def test_celery_reads_ours(self, serializer, compression):
        done = datetime.datetime.now(datetime.UTC).isoformat()
        sent = ResultDocument(
            task_id="i",
            status="SUCCESS",
            result={"x": [1, None, "é"]},
            date_done=done,
            children=[(("c", None), None)],
        )
        data = encode_result(sent, form(serializer, compression))
        found = backend(serializer).decode_result(data)
        assert (found["status"], found["result"], found["date_done"]) == ("SUCCESS", sent.result, done)
        assert [list(found["children"][0][0])] == [["c", None]]
        assert status_of(data) == "SUCCESS"
        assert decode_result(data, ALL).result == sent.result

    def test_we_read_celerys(self, serializer, compression):
        data = theirs(
            {"x": [1, None]}, serializer=serializer, compression=compression, children=[(("c", None), None)]
        )
        found = decode_result(data, ALL)
        assert (found.task_id, found.status, found.result) == ("i", "SUCCESS", {"x": [1, None]})
        assert found.children is not None
        assert list(found.children[0][0]) == ["c", None]
        assert datetime.datetime.fromisoformat(found.date_done).tzinfo is not None
        assert status_of(data) == "SUCCESS"

    @pytest.mark.parametrize("status", ["FAILURE", "RETRY", "REVOKED"])
    def test_exceptions(self, serializer, compression, status):
        data = theirs(ValueError("bad", 42), status, serializer, compression)
        found = value_of(decode_result(data, ALL))
        assert (type(found), found.args) == (ValueError, ("bad", 42))
        assert status_of(data) == status
        ours = ResultDocument(task_id="i", status=status, result=exception_to_data(ValueError("bad", 42)))
        read = backend(serializer).decode_result(encode_result(ours, form(serializer, compression)))["result"]
        assert (type(read), read.args) == (ValueError, ("bad", 42))

    def test_groups(self, serializer, compression):
        tree = [["g", None], [[["a", None], None], [["b", [["p", None], None]], None]]]
        data = encode_group(tree, form(serializer, compression))
        assert plain(backend(serializer).decode(data)["result"]) == tree
        written = backend(serializer, compression).encode({"result": tree})
        assert plain(decode_group(written if isinstance(written, bytes) else written.encode(), ALL)) == tree


def plain(value):
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("kind", NAMES)
@given(value=PLAIN, status=st.sampled_from(["SUCCESS", "STARTED", "PROGRESS"]))
def test_round_trips(kind, value, status):
    sent = ResultDocument(task_id="i", status=status, result=value, extra={"stamp": 1})
    try:
        data = encode_result(sent, form(kind))
    except EncodeError:
        return  # a text that is none: surrogates
    assert decode_result(data, ALL) == sent
    assert (kind_of(data), status_of(data)) == (kind, status)


def test_signed_results(tmp_path):
    settings = Settings()
    settings.update(identity(tmp_path, "worker", tmp_path / "store"))
    settings.update(result_serializer="auth", result_accept_content=["auth"])
    signed = result_format(settings)
    data = encode_result(ResultDocument(task_id="i", status="SUCCESS", result=[1]), signed)
    assert (decode_result(data, signed).result, status_of(data), kind_of(data)) == ([1], "SUCCESS", "auth")
    with pytest.raises(ContentDisallowed, match="json"):
        decode_result(theirs(1), signed)
    with pytest.raises(ContentDisallowed, match="auth"):
        decode_result(data)
    with pytest.raises(ProtocolError):
        decode_result(base64.b64encode(base64.b64decode(data).replace(b"SUCCESS", b"FAILURE")), signed)


class TestAcceptance:
    def test_what_is_not_accepted_is_not_touched(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "made"),)

        for status in ("SUCCESS", "FAILURE"):
            data = pickle.dumps({"status": status, "result": Evil()})
            assert status_of(data) == status
            for compressed in (data, b"\0celery-compressed\0application/x-gzip\0" + zipped(data)):
                with pytest.raises(ContentDisallowed, match=r"pickle.*result_accept_content"):
                    decode_result(compressed, ResultFormat(accept=("json", "yaml", "msgpack")))
        assert not (tmp_path / "made").exists()

    def test_the_settings(self):
        settings = Settings()
        assert result_format(settings).accept == ("json",)
        settings.update(accept_content=["yaml", "application/x-msgpack"])
        assert result_format(settings).accept == ("json", "msgpack", "yaml")  # what is written is read
        settings.update(result_accept_content=["pickle"], result_serializer="pickle", result_compression="zstd")
        assert (result_format(settings).accept, result_format(settings).compression) == (("pickle",), "zstd")

    def test_a_fleet_that_changes_its_serializer_reads_old_and_new(self):
        changing = form("yaml")
        for name in NAMES:
            assert decode_result(theirs([name], serializer=name), changing).result == [name]


def zipped(data):
    return celery.backends.base.compress(data, "gzip")[0]


class TestWritingNeverFails:
    """What only informs people must not lose a result, whatever the serializer cannot hold."""

    @pytest.mark.parametrize("serializer", ["yaml", "msgpack"])
    def test_arguments_of_exceptions(self, serializer):
        failed = ResultDocument(
            task_id="i", status="FAILURE", result=exception_to_data(ValueError(Decimal(1), 2**70, "x"))
        )
        found = value_of(decode_result(encode_result(failed, form(serializer)), ALL))
        assert type(found) is ValueError
        assert found.args[2] == "x"
        assert "1" in str(found.args[0])

    @pytest.mark.parametrize("serializer", ["yaml", "msgpack", "json"])
    def test_extended_arguments(self, serializer):
        sent = ResultDocument(
            task_id="i", status="SUCCESS", result=1, name="t", args=[object], kwargs={"k": object()}
        )
        found = decode_result(encode_result(sent, form(serializer)), ALL)
        assert (found.result, found.args) == (1, "[<class 'object'>]")
        with pytest.raises(EncodeError):
            encode_result(ResultDocument(task_id="i", status="SUCCESS", result=object()), form(serializer))

    def test_size_is_that_of_what_a_reader_has_to_expand(self):
        sent = ResultDocument(task_id="i", status="SUCCESS", result="x" * 10_000)
        assert len(encode_result(sent, form("json", "gzip", max_size=20_000))) < 1000
        with pytest.raises(PayloadTooLarge, match=r"max_payload_bytes is 9,000"):
            encode_result(sent, form("json", "gzip", max_size=9_000))
        bomb = encode_result(sent, form("json", "gzip"))
        with pytest.raises(ProtocolError, match="larger than 9,000 bytes"):
            decode_result(bomb, form("json", max_size=9_000))


class TestPickledExceptions:
    def pickled(self, exc, status="FAILURE"):
        return value_of(decode_result(theirs(exc, status, "pickle"), ALL))

    def test_the_exception_itself(self):
        exc = ValueError("bad")
        exc.code = 7
        found = self.pickled(exc)
        assert (type(found), found.args, found.code) == (ValueError, ("bad",), 7)

    @pytest.mark.parametrize("exc", [Broken(code=5), Picky(1, "no")])
    def test_what_could_not_be_pickled(self, exc):
        found = self.pickled(exc)
        assert isinstance(found, Exception)
        assert type(found).__name__ in (type(exc).__name__, "Exception")
        assert str(exc) in str(found)

    def test_a_class_that_is_not_there(self):
        module = types.ModuleType("only_on_workers")
        module.Gone = type("Gone", (Exception,), {"__module__": "only_on_workers"})
        sys.modules["only_on_workers"] = module
        try:
            data = theirs(module.Gone("far", 1), "FAILURE", "pickle")
        finally:
            del sys.modules["only_on_workers"]
        found = value_of(decode_result(data, ALL))
        assert isinstance(found, RemoteTaskError)
        assert (type(found).__name__, found.module, found.args) == ("Gone", "only_on_workers", ("far", 1))

    def test_a_value_whose_class_is_not_there(self):
        data = theirs(1, "SUCCESS", "pickle").replace(b"K\x01", b"cgone\nGone\n")
        with pytest.raises(ProtocolError, match="gone"):
            decode_result(data, ALL)

    def test_what_is_no_exception_of_the_readers(self):
        for exc in (SystemExit(3), KeyboardInterrupt(), GeneratorExit("x")):
            data = pickle.dumps({"status": "FAILURE", "result": exc})
            found = exception_of(decode_result(data, ALL))
            assert isinstance(found, RemoteTaskError)
            assert (type(found).__name__, found.args) == (type(exc).__name__, exc.args)

    def test_celerys_wrapper(self):
        wrapped = celery.utils.serialization.UnpickleableExceptionWrapper("m", "Deep", (1, "x"), "text")
        found = exception_of(decode_result(pickle.dumps({"status": "FAILURE", "result": wrapped}), ALL))
        assert (type(found).__name__, found.args) == ("Deep", (1, "x"))


class TestGarbage:
    @pytest.mark.parametrize(
        "data", [b"", b"garbage", b"\x80", b"\x80\x04", b"\x86", b"status", b"\xff" * 100, b"A" * 99]
    )
    def test_what_is_no_result(self, data):
        with pytest.raises(ProtocolError):
            decode_result(data, ALL)
        with pytest.raises(ProtocolError):
            decode_group(data, ALL)
        assert status_of(data) is None

    @pytest.mark.parametrize("depth", [500, 100_000])
    def test_depth(self, depth):
        nested = b"[" * depth + b"]" * depth
        with suppress(ProtocolError):
            decode_result(b'{"status": "SUCCESS", "result": ' + nested + b"}")
        with suppress(ProtocolError):
            decode_result(b"status: SUCCESS\nresult: " + nested[:8000], ALL)

    @given(data=st.binary() | st.sampled_from(NAMES).flatmap(lambda name: mangled(theirs([1], serializer=name))))
    def test_any_bytes(self, data):
        plain_formats = ResultFormat(accept=("json", "yaml", "msgpack"))
        with suppress(ProtocolError):
            found = decode_result(data, plain_formats)
            assert isinstance(value_of(found), object)
        with suppress(ProtocolError):
            decode_group(data, plain_formats)
        status_of(data)


def mangled(data):
    return st.tuples(st.integers(0, len(data)), st.integers(0, len(data)), st.binary(max_size=5)).map(
        lambda cut: data[: cut[0]] + cut[2] + data[cut[1] :]
    )
