"""What a plan owes to whoever sends it: how a message is composed, ids, settings. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioretryq.calling import REPLY_TO, compose, options_of_signature
from aioretryq.errors import NotRegistered
from aioretryq.ids import new_id
from aioretryq.message import TaskMessage
from aioretryq.plain_calls import uniform

if TYPE_CHECKING:
    from aioretryq.app import TaskQueue
    from aioretryq.context import Request
    from aioretryq.task import Task

Compose = Callable[[str, tuple[Any, ...], Mapping[str, Any], Mapping[str, Any]], TaskMessage]
"""(task, args, kwargs, options) -> message; options by Celery's names, as a signature has them."""


def _never(name: str) -> bool:
    return False


class Sender(Struct, frozen=True):
    """`counts`: whether the result backend counts parts of chords. `errbacks_in_header`: the setting
    `task_allow_error_cb_on_chord_header`. `uniform`: whether calls of the task of that name, with the same options,
    differ by nothing but ids and arguments. `limit`: the bytes that a message may have."""

    compose: Compose
    new_id: Callable[[], str]
    reply_to: str
    now: float
    counts: bool = True
    errbacks_in_header: bool = False
    uniform: Callable[[str], bool] = _never
    limit: int = 2**62


def sender_of(
    queue: TaskQueue, caller: Request | None, *, ids: Callable[[], str] = new_id, now: float | None = None
) -> Sender:
    """By the tasks and settings of a queue; `caller` is the request of the task that sends, if one does."""
    conf, moment = queue.conf, time.time() if now is None else now

    def composed(
        name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> TaskMessage:
        call = options_of_signature(options, name)
        task = known(queue, name)
        return compose(name, (args, kwargs), call, task=task, settings=conf, caller=caller, now=moment)

    def alike(name: str) -> bool:
        return uniform(name, known(queue, name), conf)

    return Sender(
        composed,
        ids,
        REPLY_TO,
        moment,
        errbacks_in_header=conf.task_allow_error_cb_on_chord_header,
        uniform=alike,
        limit=conf.max_payload_bytes,
    )


def known(queue: TaskQueue, name: str) -> Task[Any, Any] | None:
    """The task of that name, if this process has it."""
    try:
        return queue.find_task(name)
    except NotRegistered:
        return None
