"""The tasks that trees are made of, for workers of both kinds: plain functions, and what decorates them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

ERRORS = {error.__name__: error for error in (ValueError, KeyError, ZeroDivisionError)}


def flat(values: Any) -> Iterator[int]:
    if isinstance(values, list | tuple):
        for value in values:
            yield from flat(value)
    elif isinstance(values, int):
        yield values


def add(*args: Any, by: int = 0) -> int:
    return sum(flat(args)) + by


def echo(*args: Any, by: int = 0) -> list[Any]:
    return [*args, {"by": by}] if by else list(args)


def broken(at: str) -> str:
    return f"broken at {at.partition('.')[2]}"


def define(task: Callable[..., Any], ran: Callable[[str], None]) -> None:
    """The tasks of trees, for whatever decorates functions as Celery does."""

    @task(name="t.add")
    def t_add(*args, at="", by=0):
        ran(f"{at} add")
        return add(*args, by=by)

    @task(name="t.echo")
    def t_echo(*args, at="", by=0):
        ran(f"{at} echo")
        return echo(*args, by=by)

    @task(name="t.fail")
    def t_fail(*args, at="", error=""):
        ran(f"{at} fail")
        raise ERRORS[error](broken(at))

    @task(name="t.flaky", bind=True, max_retries=2)
    def t_flaky(self, *args, at="", by=0):
        ran(f"{at} flaky {self.request.retries}")
        if not self.request.retries:
            raise self.retry(
                countdown=0.1
            )  # the next attempt may be that of another worker: not before this has ended
        return echo(*args, by=by)

    @task(name="t.linked")
    def t_linked(value, at=""):
        ran(f"{at} linked {value}")

    @task(name="t.told")
    def t_told(request, exc, traceback, at=""):
        ran(f"{at} told {type(exc).__name__}")
