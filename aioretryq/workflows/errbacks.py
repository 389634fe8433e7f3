"""Errbacks: who is told of a failure, and how.

Celery knows two kinds (celery/backends/base.py): a task that takes more than the id of what failed is called in the
process that saw the failure, with request, exception and traceback; any other, or one that is not known there, is
sent as a task with the id.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from msgspec import Struct

from aioretryq.context import Request
from aioretryq.errors import NotRegistered
from aioretryq.execution import running
from aioretryq.protocol.signature import TASK, Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aioretryq.app import TaskQueue
    from aioretryq.task import Task

logger = logging.getLogger("aioretryq.task")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Failure(Struct, frozen=True):
    request: Request
    exc: BaseException
    traceback: str | None = None


class Errback(Struct, frozen=True):
    """One to be called here."""

    task: Task[Any, Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    request: Request


def sorted_out(queue: TaskQueue, errbacks: Iterable[Node], failure: Failure) -> tuple[list[Errback], list[Node]]:
    """(those to call here, those to send)."""
    called, sent = [], []
    for node in errbacks:
        task = _known(queue, node)
        if task is not None and takes_more_than_an_id(task, node):
            given = () if node.immutable else (failure.request, failure.exc, failure.traceback)
            called.append(Errback(task, (*given, *node.args), node.kwargs, failure.request))
        else:
            sent.append(node)
    return called, sent


def takes_more_than_an_id(task: Task[Any, Any], errback: Node) -> bool:
    """Whether the function wants more arguments than one, besides those that the signature brings."""
    parameters = list(task.parameters.parameters.values())[1 if task.bind else 0 :]
    if any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters):
        return True
    names = [each.name for each in parameters if each.kind in _POSITIONAL]
    if not errback.immutable:
        names = [name for name in names[len(errback.args) :] if name not in errback.kwargs]
    return len(names) > 1


async def call(queue: TaskQueue, errback: Errback) -> None:
    """In a thread, if it is no coroutine; whatever it raises is logged, and changes nothing."""
    task = errback.task
    request = Request(
        task=task.name,
        args=list(errback.args),
        kwargs=dict(errback.kwargs),
        root_id=errback.request.root_id,
        parent_id=errback.request.id,
        hostname=errback.request.hostname,
        called_directly=True,
    )
    try:
        with running(task, request, queue):
            if task.is_coroutine:
                await task.run(*errback.args, **errback.kwargs)
                return
            returned = await anyio.to_thread.run_sync(lambda: task.run(*errback.args, **errback.kwargs))
            if inspect.isawaitable(returned):
                await returned
    except Exception:
        logger.exception("Errback %s of task %s raised", task.name, errback.request.id)


def _known(queue: TaskQueue, node: Node) -> Task[Any, Any] | None:
    if node.kind != TASK:
        return None
    try:
        return queue.find_task(node.task)
    except NotRegistered:
        return None
