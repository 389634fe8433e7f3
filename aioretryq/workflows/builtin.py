"""Tasks that every worker knows, for Celery's clients and workers send them: `celery.map`, `celery.chord_unlock`."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from aioretryq import states
from aioretryq.context import Request
from aioretryq.errors import ChordError, ConfigError, MaxRetriesExceededError, ProtocolError
from aioretryq.protocol.exceptions import exception_to_data
from aioretryq.protocol.result import ResultDocument, exception_of
from aioretryq.protocol.saferepr import saferepr
from aioretryq.protocol.signature import (
    CHORD,
    TASK,
    Node,
    group_of,
    merged_arguments,
    read_signature,
    read_signatures,
)
from aioretryq.protocol.task import format_moment
from aioretryq.registration import current_queue, make_task
from aioretryq.workflows import errbacks, rescue
from aioretryq.workflows.sending import send_signature
from aioretryq.workflows.shapes import errbacks_of, failing

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.app import TaskQueue
    from aioretryq.task import Task

BUILTIN: dict[str, Task[Any, Any]] = {}

MOST = 100_000
"""Tasks that one `celery.chunks` may become."""


def _builtin(name: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        BUILTIN[name] = make_task(function, {"name": name, **options}, app=current_queue)
        return function

    return register


@_builtin("celery.map", bind=True)
async def xmap(self: Task[Any, Any], task: dict[str, Any], it: list[Any]) -> list[Any]:
    """The results of the task for each of `it`, one after the other, in one run."""
    return [await _call(self.app, task, (item,)) for item in it]


@_builtin("celery.starmap", bind=True)
async def xstarmap(self: Task[Any, Any], task: dict[str, Any], it: list[Any]) -> list[Any]:
    """As `celery.map`, with lists of arguments."""
    return [await _call(self.app, task, tuple(item)) for item in it]


async def _call(queue: TaskQueue, signature: dict[str, Any], args: tuple[Any, ...]) -> Any:
    """As Celery does, without the signature's own arguments."""
    task = queue.find_task(read_signature(signature).task)
    if task.is_coroutine:
        return await task.run(*args)
    returned = await anyio.to_thread.run_sync(lambda: task.run(*args))
    return await returned if inspect.isawaitable(returned) else returned


@_builtin("celery.chunks", bind=True)
async def chunks(self: Task[Any, Any], task: dict[str, Any], it: list[Any], n: int) -> list[Any]:
    """Send `celery.starmap` for every `n` of `it`, as a group; its result as a tree."""
    if type(n) is not int or n < 1 or len(it) / n > MOST:
        raise ConfigError(f"celery.chunks takes a size from 1 on, and makes at most {MOST:,} tasks; not of {n!r}.")
    parts = [it[start : start + n] for start in range(0, len(it), n)]
    members = [_starmap(task, part) for part in parts]
    handle = await send_signature(self.app, group_of(members))
    return handle.as_tuple() if handle is not None else []


def _starmap(task: dict[str, Any], it: list[Any]) -> Node:
    kwargs = {"task": task, "it": it}
    return Node(TASK, "celery.starmap", kwargs=kwargs, immutable=True, subtask_type="xstarmap")


@_builtin("celery.group", bind=True)
async def group(
    self: Task[Any, Any],
    tasks: list[Any],
    result: Any,
    group_id: str,
    partial_args: list[Any],
    add_to_parent: bool = True,
) -> Any:
    """Send the tasks; `result` is what the sender made of their ids."""
    members = [merged_arguments(node, tuple(partial_args), {}) for node in read_signatures(tasks, "tasks")]
    await send_signature(self.app, group_of(members, task_id=group_id))
    return result


@_builtin("celery.chain")
async def chain(*args: Any, **kwargs: Any) -> None:
    raise NotImplementedError("celery.chain is not a task: its steps are sent one by one.")


@_builtin("celery.chord", bind=True)
async def chord(
    self: Task[Any, Any], header: Any, body: dict[str, Any], partial_args: list[Any] | None = None, **kwargs: Any
) -> Any:
    """Send the header; the body's result as a tree. Options of waiting, as older Celery sends, mean nothing here."""
    value = {
        "task": "celery.chord",
        "subtask_type": CHORD,
        "kwargs": {"header": header, "body": body, "kwargs": {}},
        "options": {name: kwargs[name] for name in ("task_id", "root_id", "queue", "priority") if name in kwargs},
    }
    handle = await send_signature(self.app, value, partial_args or ())
    return handle.as_tuple() if handle is not None else None


@_builtin("celery.accumulate")
async def accumulate(*args: Any, **kwargs: Any) -> Any:
    """Its arguments, or with `index` one of them."""
    index = kwargs.get("index")
    return list(args) if index is None else args[index]


@_builtin("celery.backend_cleanup", bind=True)
async def backend_cleanup(self: Task[Any, Any]) -> int:
    """Delete results that have expired; how many."""
    return await self.app.results.backend.cleanup()


@_builtin(rescue.TASK, acks_late=True, ignore_result=True)
async def rescue_chord(**kwargs: Any) -> None:
    """Nothing: the body of a chord, or its failure, follows from it (`worker/followups.py`)."""


# -- the body of a chord whose parts are not counted


@_builtin("celery.chord_unlock", bind=True, max_retries=None, ignore_result=True)
async def chord_unlock(
    self: Task[Any, Any],
    group_id: str,
    callback: dict[str, Any],
    interval: float | None = None,
    max_retries: int | None = None,
    result: list[Any] | None = None,
    **kwargs: Any,
) -> None:
    """Look whether all parts of a header are there, again and again, then send the body."""
    found = [await _outcome(self.app, each) for each in result or []]
    if any(each is None for each in found):
        delay = self.app.conf.result_chord_retry_interval if interval is None else interval
        try:
            self.retry(countdown=delay, max_retries=max_retries)
        except MaxRetriesExceededError as spent:
            error = ChordError(f"The parts of the header are not there: {spent}")
            await _fail(self.app, read_signature(callback), error)
            raise
    try:
        values = [_value(each) for each in found if each is not None]
    except ChordError as failed:
        await _fail(self.app, read_signature(callback), failed)
        return
    await send_signature(self.app, callback, (values,))


_Found = ResultDocument | list[Any]


async def _outcome(queue: TaskQueue, tree: Any) -> _Found | None:
    """The documents of a result that was sent as a tree; None while one of them is not final."""
    match tree:
        case [[str(task_id), _] | str(task_id), None]:
            document = await queue.results.get_task_meta(task_id)
            return document if document.status in states.FINAL else None
        case [_, [*members]]:
            found = [await _outcome(queue, member) for member in members]
            return None if any(each is None for each in found) else found
    raise ProtocolError("celery.chord_unlock takes the results of the header, as Celery writes them.")


def _value(found: _Found) -> Any:
    if isinstance(found, list):
        return [_value(each) for each in found]
    if found.status != states.SUCCESS:
        raise ChordError(f"Dependency {found.task_id} raised {saferepr(exception_of(found))}")
    return found.result


async def _fail(queue: TaskQueue, body: Node, error: ChordError) -> None:
    """Tell all who wait for a body that it will never be sent."""
    done = format_moment(time.time())
    later = [call for step in body.options.get("chain") or () for call in failing(read_signature(step, lenient=True))]
    await queue.results.store(
        [
            queue.results.record(
                ResultDocument(
                    task_id=call.options["task_id"],
                    status=states.FAILURE,
                    result=exception_to_data(error),
                    date_done=done,
                )
            )
            for call in (*failing(body), *later)
        ]
    )
    for call, signatures in errbacks_of(body):
        failure = errbacks.Failure(Request(id=call.task_id, task=call.task), error)
        called, sent = errbacks.sorted_out(queue, map(read_signature, signatures), failure)
        for errback in called:
            await errbacks.call(queue, errback)
        if sent:
            await send_signature(queue, group_of(sent), (call.task_id,))
