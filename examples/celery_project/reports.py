"""Canvas: chains, groups, chords, callbacks, a task that replaces itself."""

from __future__ import annotations

from typing import Any

from celery import chain, chord, group, shared_task

from examples.celery_project.store import database


@shared_task
def double(number: int) -> int:
    return number * 2


@shared_task
def add(first: int, second: int) -> int:
    return first + second


@shared_task
def collect(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task
def broken(number: int) -> int:
    raise ValueError(f"no figures for {number}")


@shared_task
def keep(value: Any, key: str) -> Any:
    """A callback: what it was called with can be looked up."""
    database().rpush(f"shop:kept:{key}", repr(value))
    return value


@shared_task(bind=True)
def quarterly(self: Any, months: list[int]) -> Any:
    """Replaced by a chord, whose result becomes its own."""
    raise self.replace(chord([double.s(month) for month in months], collect.s()))


@shared_task
def start_yearly(months: int) -> str:
    """Composes and sends from inside of a task."""
    sent = (group(double.s(month) for month in range(months)) | collect.s() | add.s(1)).apply_async()
    return str(sent.id)


def yearly(months: int) -> Any:
    return chain(group(double.s(month) for month in range(months)), collect.s(), add.s(100))
