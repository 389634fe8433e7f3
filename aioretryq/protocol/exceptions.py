"""Exceptions as data: how a result says what a task raised, and how the reader raises it again.

The names come from whoever can write to the result backend, so nothing is ever imported for them, and
nothing but an exception class that is loaded already is ever called.
"""

from __future__ import annotations

import io
import pickle
import sys
from contextlib import suppress
from functools import lru_cache
from types import ModuleType
from typing import Any

from aioretryq import errors
from aioretryq.errors import EncodeError, ProtocolError, RemoteTaskError
from aioretryq.protocol import jsontypes
from aioretryq.protocol.saferepr import saferepr

_CELERY = "celery.exceptions"
_BILLIARD = "billiard.exceptions"
_OURS: dict[tuple[str, str], type[Exception]] = {
    (_CELERY, "MaxRetriesExceededError"): errors.MaxRetriesExceededError,
    (_CELERY, "Retry"): errors.Retry,
    (_CELERY, "ChordError"): errors.ChordError,
    (_CELERY, "Ignore"): errors.Ignore,
    (_CELERY, "Reject"): errors.Reject,
    (_CELERY, "TaskRevokedError"): errors.TaskRevokedError,
    (_CELERY, "NotRegistered"): errors.NotRegistered,
    (_BILLIARD, "TimeLimitExceeded"): errors.TimeLimitExceeded,
    (_BILLIARD, "SoftTimeLimitExceeded"): errors.SoftTimeLimitExceeded,
    (_BILLIARD, "WorkerLostError"): errors.WorkerLostError,
    ("kombu.exceptions", "EncodeError"): errors.EncodeError,
}
# Written with Celery's name, so that a Celery client gets the class it knows.
_THEIRS: dict[type[BaseException], str] = {cls: module for (module, _), cls in _OURS.items()}
_MAX_NAME = 200
_WRAPPER = "UnpickleableExceptionWrapper"
# The slot itself: a class of the user's may have an attribute of that name which raises.
_args_of = BaseException.__dict__["args"].__get__
_module_of = type.__dict__["__module__"].__get__  # likewise a metaclass
_qualname_of = type.__dict__["__qualname__"].__get__


def exception_to_data(exc: BaseException) -> dict[str, Any]:
    """`{"exc_type", "exc_message", "exc_module"}`; arguments that JSON cannot hold become their repr.

    Never raises, whatever the exception is made of.
    """
    cls = type(exc)
    module = next((theirs for ours, theirs in _THEIRS.items() if ours is cls), None) or _module_of(cls)
    args = () if cls is errors.SoftTimeLimitExceeded else _args_of(exc)  # which in Celery does not say after how long
    return {
        "exc_type": _qualname_of(cls),
        "exc_message": [_jsonable(arg) for arg in args],
        "exc_module": module if isinstance(module, str) else "",
    }


def exception_from_data(data: object) -> Exception:
    """The exception that `exception_to_data`, or Celery, described.

    Its own class if that is loaded in this process and takes the arguments; else a subclass of
    RemoteTaskError of the same name. Old records and garbage become a RemoteTaskError. Never raises.
    """
    if isinstance(data, BaseException):
        return _from_pickle(data)
    if not isinstance(data, dict) or not isinstance(data.get("exc_type"), str):
        return RemoteTaskError(data)
    name, module = data["exc_type"], data.get("exc_module")
    module = module if isinstance(module, str) else ""
    args = _arguments(data.get("exc_message"))
    cls = _loaded(module, name)
    if cls is not None:
        # The constructor may want other arguments than those it passed on to Exception.
        with suppress(Exception):
            exc = cls(*args)
            if isinstance(exc, Exception):
                return exc
    return stand_in(module[:_MAX_NAME], name[:_MAX_NAME])(*args)


def _from_pickle(exc: BaseException) -> Exception:
    """Pickled results hold exceptions themselves, or Celery's wrapper around one that could not be pickled."""
    args = _args_of(exc)
    if type(exc).__qualname__ == _WRAPPER and len(args) == 4:
        return exception_from_data({"exc_module": args[0], "exc_type": args[1], "exc_message": args[2]})
    # An exit or a cancellation of the worker's is not one of the reader's.
    return exc if isinstance(exc, Exception) else exception_from_data(exception_to_data(exc))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return stand_in(module[:_MAX_NAME], name[:_MAX_NAME])


def unpickle_with_stand_ins(data: bytes) -> Any:
    """What is pickled; where a class cannot be found, a stand-in takes its place. Raises ProtocolError.

    Runs whatever the pickle says. Ask `accept_content` first.
    """
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except Exception as error:  # a pickle runs code, which raises what it likes
        raise ProtocolError(f"Not a pickle that can be read here: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=512)
def stand_in(module: str, qualname: str) -> type[RemoteTaskError]:
    """A subclass of RemoteTaskError that looks like a class which is not loaded here."""
    name = qualname.rpartition(".")[2]
    if not name.isidentifier():
        return RemoteTaskError
    namespace = {"module": module, "__module__": module or RemoteTaskError.__module__, "__qualname__": qualname}
    return type(name, (RemoteTaskError,), namespace)


def _jsonable(value: Any) -> Any:
    try:
        jsontypes.dumps(value)
    except EncodeError:
        return saferepr(value)
    return value


def _arguments(message: object) -> tuple[Any, ...]:
    if isinstance(message, list | tuple):
        return tuple(message)
    return () if message is None else (message,)


def _loaded(module: str, qualname: str) -> type[Exception] | None:
    """The exception class of that name, looked up without running any code: no import, no __getattr__."""
    ours = _OURS.get((module, qualname))
    if ours is not None:
        return ours
    found: object = sys.modules.get(module)
    if not isinstance(found, ModuleType):
        return None
    for part in qualname.split("."):
        # object's lookup, because a lazily loaded module or a metaclass may act on its own.
        lookup = type.__getattribute__ if isinstance(found, type) else object.__getattribute__
        found = lookup(found, "__dict__").get(part)
        if not isinstance(found, type):
            return None
    return found if isinstance(found, type) and issubclass(found, Exception) else None
