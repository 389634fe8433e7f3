"""Exceptions as users write them: whatever they are made of, the caller gets one, and the worker goes on."""

from __future__ import annotations

import asyncio
import sys

import pytest

from aioretryq import RemoteTaskError, TaskQueue, Worker
from queues import memory_url, soon


def no(*_: object, **__: object) -> object:
    raise RuntimeError("not even this works")


class NoReduce(Exception):
    __reduce__ = no
    __reduce_ex__ = no


class NoArgs(Exception):
    args = property(no)


class NoText(Exception):
    __str__ = no
    __repr__ = no


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__("failed", code)
        self.code = code


class Outer:
    class Inner(Exception):
        class Innermost(Exception):
            pass


class NoComparison(Exception):
    __eq__ = no
    __hash__ = no
    __bool__ = no


class Meta(type):
    __hash__ = no
    __eq__ = no

    def __getattribute__(cls, name: str) -> object:
        if name in ("__qualname__", "__name__") and sys._getframe(1).f_globals["__name__"].startswith("aioretryq"):
            raise RuntimeError(name)  # the standard library prints tracebacks with these
        return type.__getattribute__(cls, name)


class OddClass(Exception, metaclass=Meta):
    pass


class Liar(Exception):
    __class__ = property(no)
    __dict__ = property(no)


class Attributes(Exception):
    def __getattribute__(self, name: str) -> object:
        if name in ("__traceback__", "__cause__", "__context__", "__suppress_context__", "__notes__"):
            return object.__getattribute__(self, name)  # the traceback is printed by the standard library
        raise RuntimeError(name)


def circle() -> Exception:
    error = ValueError("round")
    error.__cause__ = error
    error.args = (error,)
    return error


def deep() -> Exception:
    value: list[object] = []
    for _ in range(3000):
        value = [value]
    return ValueError(value)


ODD = {
    "reduce": lambda: NoReduce("x"),
    "args": lambda: NoArgs("x"),
    "text": lambda: NoText("x"),
    "keyword only": lambda: KeywordOnly(code=5),
    "nested class": lambda: Outer.Inner.Innermost("x", 5),
    "local class": lambda: type("Local", (Exception,), {})("x"),
    "comparison": lambda: NoComparison("x"),
    "metaclass": lambda: OddClass("x"),
    "class": lambda: Liar("x"),
    "attributes": lambda: Attributes("x"),
    "circle": circle,
    "deep": deep,
    "surrogates": lambda: ValueError("\ud800"),
    "objects": lambda: ValueError(object(), {1}, NoText("x")),
    "group": lambda: ExceptionGroup("several", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])]),
    "base group": lambda: BaseExceptionGroup("several", [SystemExit(3)]),
    "exit": lambda: SystemExit(3),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
}


@pytest.fixture(params=["json", "yaml", "msgpack", "pickle"])
async def queue(request):
    settings = {"accept_content": ["json", request.param], "result_serializer": request.param}
    async with TaskQueue(memory_url(), **settings) as queue:

        @queue.task(name="raise")
        async def raise_it(kind):
            raise ODD[kind]()

        @queue.task(name="raise.retrying", autoretry_for=(BaseException,), max_retries=1, default_retry_delay=0)
        async def raise_it_again(kind):
            raise ODD[kind]()

        @queue.task(name="alive")
        async def alive():
            return True

        async with Worker(queue).running():
            yield queue


@pytest.mark.parametrize("name", ["raise", "raise.retrying"])
async def test_every_one_is_a_failure_and_comes_back(queue, name):
    results = {kind: await queue.send_task(name, [kind]) for kind in ODD}
    found = await soon(asyncio.gather(*[result.get(propagate=False) for result in results.values()]))
    for kind, error in zip(ODD, found, strict=True):
        assert isinstance(error, Exception), kind
    by_kind = dict(zip(ODD, found, strict=True))
    assert [type(by_kind[kind]) for kind in ("nested class", "text", "args")] == [
        Outer.Inner.Innermost,
        NoText,
        NoArgs,
    ]
    assert by_kind["nested class"].args == ("x", 5)
    for kind, shown in {"keyword only": "KeywordOnly", "local class": "Local", "group": "ExceptionGroup"}.items():
        assert isinstance(by_kind[kind], RemoteTaskError)
        assert type(by_kind[kind]).__name__ == shown
    assert by_kind["keyword only"].args == ("failed", 5)
    for result in results.values():
        assert await result.status() == "FAILURE"
    assert await soon((await queue.send_task("alive")).get())
