import json
import sys
import types

import billiard.exceptions
import celery.exceptions
import pytest
from celery.app.base import Celery
from golden_data import result_documents
from hypothesis import given
from hypothesis import strategies as st

from aioretryq import errors
from aioretryq.errors import RemoteTaskError
from aioretryq.protocol.exceptions import exception_from_data, exception_to_data, stand_in
from aioretryq.protocol.jsontypes import dumps, loads
from aioretryq.states import WITH_EXCEPTION


class Custom(Exception):
    class Inner(Exception):
        pass


class KeywordOnly(Exception):
    def __init__(self, *, code):
        super().__init__("failed", code)


class BrokenRepr(Exception):
    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__


class BrokenArgs(Exception):
    @property
    def args(self):
        raise RuntimeError("no args")


class NotAnError(Exception):
    def __new__(cls, *_):
        return 5


class Harmful:
    called = False

    def __init__(self, *_):
        Harmful.called = True


def data(name, *args, module=__name__):
    return {"exc_type": name, "exc_message": list(args), "exc_module": module}


def travelled(exc):
    return exception_from_data(loads(dumps(exception_to_data(exc))))


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("bad", 42),
        OSError(5, "io"),
        KeyError("k"),
        Custom("c", {"a": 1}),
        Custom.Inner("x"),
        TimeoutError(),
    ],
)
def test_loaded_exceptions_come_back_as_they_were(exc):
    again = travelled(exc)
    assert type(again) is type(exc)
    assert again.args == exc.args


def test_it_writes_what_celery_writes():
    assert exception_to_data(ValueError("bad", 42)) == data("ValueError", "bad", 42, module="builtins")
    assert exception_to_data(Custom.Inner("x"))["exc_type"] == "Custom.Inner"
    assert exception_to_data(errors.Reject("nope")) == data("Reject", "nope", False, module="celery.exceptions")
    backend = Celery(backend="cache+memory://", set_as_current=False).backend
    for exc in (ValueError("bad", 42), Custom("c", {"a": 1}), KeyError()):
        theirs = backend.prepare_exception(exc, serializer="json")
        assert exception_to_data(exc) == {**theirs, "exc_message": list(theirs["exc_message"])}


OURS = [
    (errors.MaxRetriesExceededError("m"), celery.exceptions.MaxRetriesExceededError),
    (errors.Retry("later", None, 3), celery.exceptions.Retry),
    (errors.Ignore("i"), celery.exceptions.Ignore),
    (errors.Reject("nope", True), celery.exceptions.Reject),
    (errors.TaskRevokedError("expired"), celery.exceptions.TaskRevokedError),
    (errors.NotRegistered("no.such.task"), celery.exceptions.NotRegistered),
    (errors.TimeLimitExceeded(30), billiard.exceptions.TimeLimitExceeded),
]


@pytest.mark.parametrize(("exc", "theirs"), OURS)
def test_a_celery_client_gets_its_own_class_and_we_get_ours(exc, theirs):
    stored = json.loads(dumps(exception_to_data(exc)))
    backend = Celery(backend="cache+memory://", set_as_current=False).backend
    assert type(backend.exception_to_python(stored)) is theirs
    assert type(exception_from_data(stored)) is type(exc)


def test_other_errors_of_ours_keep_their_name():
    assert type(travelled(errors.ResultTimeout("t"))) is errors.ResultTimeout
    assert type(travelled(errors.RemoteTaskError("r"))) is RemoteTaskError


@pytest.mark.parametrize("document", result_documents())
def test_golden_exceptions(document):
    if document["status"] in WITH_EXCEPTION:
        exc = exception_from_data(document["result"])
        assert type(exc).__name__ == document["result"]["exc_type"]
        if document["result"]["exc_type"] != "ChordError":  # Celery is loaded here, and that class is its own
            assert exception_to_data(exc)["exc_module"] == document["result"]["exc_module"]


def test_a_class_that_is_not_loaded_gets_a_stand_in():
    exc = exception_from_data(data("Outer.Failed", "why", 3, module="not_loaded.errors"))
    assert isinstance(exc, RemoteTaskError)
    assert (type(exc).__name__, exc.module, exc.args) == ("Failed", "not_loaded.errors", ("why", 3))
    assert "not_loaded" not in sys.modules
    assert type(exception_from_data(data("Outer.Failed", module="not_loaded.errors"))) is type(exc)
    # handed on by another task, it is still the original's
    assert exception_to_data(exc) == data("Outer.Failed", "why", 3, module="not_loaded.errors")


def test_a_constructor_that_wants_something_else_gets_a_stand_in():
    exc = travelled(KeywordOnly(code=3))
    assert isinstance(exc, RemoteTaskError)
    assert (type(exc).__name__, exc.module, exc.args) == ("KeywordOnly", __name__, ("failed", 3))
    assert isinstance(exception_from_data(data("NotAnError", 1)), RemoteTaskError)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "SystemExit"),
        ("builtins", "KeyboardInterrupt"),
        ("builtins", "BaseException"),
        ("builtins", "dict"),
        ("builtins", "ValueError.__init__"),
        ("builtins", "ValueError.mro"),
        ("subprocess", "Popen"),
        (__name__, "Harmful"),
        (__name__, "pytest.fail"),
        ("asyncio", "CancelledError"),
    ],
)
def test_only_exception_classes_are_called(module, name):
    exc = exception_from_data(data(name, "true", module=module))
    assert isinstance(exc, RemoteTaskError)
    assert exc.args == ("true",)
    assert not Harmful.called


def test_no_code_runs_to_find_a_class(monkeypatch):
    looked_up = []

    class Lazy(types.ModuleType):
        def __getattribute__(self, name):
            looked_up.append(name)
            return super().__getattribute__(name)

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "lazy_for_test", Lazy("lazy_for_test"))
        patch.setitem(sys.modules, "nothing_for_test", None)
        found = [exception_from_data(data("Any", module=module)) for module in ("lazy_for_test", "nothing_for_test")]
    assert all(isinstance(exc, RemoteTaskError) for exc in found)
    assert "Any" not in looked_up
    assert "__dict__" not in looked_up


@pytest.mark.parametrize("old", ["ValueError('bad')", None, [], ["a"], 5, {}, {"exc_type": None}, {"exc_type": 5}])
def test_old_records_and_garbage(old):
    exc = exception_from_data(old)
    assert type(exc) is RemoteTaskError
    assert exc.args == (old,)


@pytest.mark.parametrize(
    ("message", "args"), [("text", ("text",)), (None, ()), ([], ()), (["a", 1], ("a", 1)), ({"a": 1}, ({"a": 1},))]
)
def test_messages_of_any_shape(message, args):
    assert exception_from_data({"exc_type": "X", "exc_message": message}).args == args
    assert (
        exception_from_data({"exc_type": "ValueError", "exc_message": message, "exc_module": "builtins"}).args == args
    )


@pytest.mark.parametrize("name", ["", ".", "a b", "x\0y", "\ud800", "1", "x" * 10_000, "a..b"])
def test_odd_names(name):
    for module in ("", "builtins", "x\0y", "\ud800", 5, None):
        assert isinstance(exception_from_data(data(name, 1, module=module)), RemoteTaskError)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(JSON | st.fixed_dictionaries({"exc_type": JSON | st.text(), "exc_message": JSON, "exc_module": JSON}))
def test_any_data_is_an_exception(value):
    assert isinstance(exception_from_data(value), Exception)


@given(
    st.sampled_from(sorted(name for name, cls in vars(__import__("builtins")).items() if isinstance(cls, type))),
    st.lists(JSON, max_size=5),
)
def test_any_builtin_with_any_arguments_is_an_exception(name, args):
    assert isinstance(exception_from_data(data(name, *args, module="builtins")), Exception)


def test_exceptions_of_anything_can_be_written():
    loop = []
    loop.append(loop)
    itself = ValueError()
    itself.args = (itself,)
    broken = BrokenRepr("x")
    odd = [
        ValueError(object(), {1, 2}, 3),
        ValueError(loop),
        ValueError(broken),
        broken,
        BrokenArgs("kept"),
        itself,
        KeyError({(1, 2): 3}),
        ExceptionGroup("group", [ValueError(1)]),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        SystemExit(3),
    ]
    for exc in odd:
        written = exception_to_data(exc)
        assert loads(dumps(written)) == loads(dumps(written))
        assert isinstance(exception_from_data(loads(dumps(written))), Exception)
    assert exception_to_data(odd[0])["exc_message"][1:] == ["{1, 2}", 3]
    assert exception_to_data(odd[1])["exc_message"] == ["[[...]]"]
    assert exception_to_data(BrokenArgs("kept"))["exc_message"] == ["kept"]


def test_stand_ins_are_bounded():
    for number in range(2000):
        exception_from_data(data(f"Error{number}", module="m"))
    assert stand_in.cache_info().currsize <= 512
    assert len(type(exception_from_data(data("x" * 10_000))).__name__) <= 200


def test_what_celery_tells_of_its_own():
    assert exception_to_data(errors.SoftTimeLimitExceeded(1.0)) == data(
        "SoftTimeLimitExceeded", module="billiard.exceptions"
    )
    assert exception_to_data(errors.EncodeError("no")) == data("EncodeError", "no", module="kombu.exceptions")
    assert type(travelled(errors.EncodeError("no"))) is errors.EncodeError
