"""Celery keeps what is running on stacks, one for each thread; a coroutine gets those of its tracing thread."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from celery import _state
from celery.utils import threads

_borrowed: ContextVar[Any] = ContextVar("aioretryq_celery_thread", default=None)


def _owner() -> Any:
    borrowed = _borrowed.get()
    return threads.get_ident() if borrowed is None else borrowed


def lend_to_coroutine() -> None:
    """From now on, in this context, Celery's stacks are those of this thread, which is going to wait."""
    _borrowed.set(_owner())


def lend_stacks(task: Any) -> None:
    """Make the stacks that a coroutine of this task looks at lendable."""
    for stack in (task.request_stack, _state._task_stack):
        if hasattr(stack, "__ident_func__"):  # not where USE_FAST_LOCALS has replaced them
            stack.__ident_func__ = _owner
