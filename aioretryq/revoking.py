"""Revoking tasks so that it lasts: in the broker, for every worker of ours, and in the result backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aioretryq import states
from aioretryq.backends.disabled import DisabledBackend
from aioretryq.errors import TaskRevokedError
from aioretryq.message import revocation, revocation_of_group, revocation_of_stamps
from aioretryq.protocol.exceptions import exception_to_data
from aioretryq.protocol.result import ResultDocument
from aioretryq.protocol.saferepr import inline
from aioretryq.protocol.task import format_moment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.message import StoredResult

REVOCATION_TTL = 24 * 3600.0
"""Seconds a revocation is remembered: longer than anything usually waits in a queue."""

NOTICES, RESULTS = 2000, 500
"""Ids that are worked on at once, before others have their turn: in the broker, and in the result backend."""

SHOWN = 3

_NOT_STARTED = frozenset({states.PENDING, states.RECEIVED, states.RETRY, "REJECTED"})


async def keep_revoked(queue: TaskQueue, task_ids: Sequence[str], *, terminate: bool) -> None:
    """Tell every worker of ours, now and for a day."""
    for ids in _chunks(task_ids, NOTICES):
        notices = [revocation(task_id, terminate=terminate) for task_id in ids]
        await queue.broker.revoke(notices, ttl=REVOCATION_TTL)


async def keep_group(queue: TaskQueue, group_id: str, *, terminate: bool) -> None:
    """As `keep_revoked`, for all tasks of a group: one notice, however many they are."""
    await queue.broker.revoke([revocation_of_group(group_id, terminate=terminate)], ttl=REVOCATION_TTL)


async def store_revoked(queue: TaskQueue, task_ids: Sequence[str], *, terminate: bool) -> None:
    """REVOKED for those that have not begun, and with `terminate` for all; a result that is final stays."""
    if isinstance(queue.results.backend, DisabledBackend):
        return
    reason = "terminated" if terminate else "revoked"
    for ids in _chunks(task_ids, RESULTS):
        if not terminate:
            found = await queue.results.get_many(ids)
            ids = [each for each, document in zip(ids, found, strict=True) if document.status in _NOT_STARTED]
        if ids:
            await queue.results.store(_records(queue, ids, reason))
        await asyncio.sleep(0)  # others have their turn, also where a backend answers without waiting


def _chunks(task_ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (task_ids[start : start + size] for start in range(0, len(task_ids), size))


async def keep_stamps(queue: TaskQueue, stamps: Mapping[str, Sequence[str]], *, terminate: bool) -> None:
    """As `keep_revoked`, for all tasks with one of these stamps; which ones that are is seen when they come."""
    await queue.broker.revoke([revocation_of_stamps(stamps, terminate=terminate)], ttl=REVOCATION_TTL)


def _records(queue: TaskQueue, task_ids: Sequence[str], reason: str) -> list[StoredResult]:
    error, now = exception_to_data(TaskRevokedError(reason)), format_moment(time.time())
    return [
        queue.results.record(ResultDocument(task_id=each, status=states.REVOKED, result=error, date_done=now))
        for each in task_ids
    ]


def ids_of(task_id: Any) -> list[str]:
    """One id, or several, each once; TypeError for anything else."""
    found = [task_id] if isinstance(task_id, str) else task_id
    if not isinstance(found, list | tuple | set | frozenset) or not all(isinstance(each, str) for each in found):
        raise TypeError(f"the id of a task is a text, not {task_id!r:.100}")
    try:
        "".join(found).encode()
    except UnicodeEncodeError as error:
        raise TypeError(f"the id of a task is a text, not one with half a character: {error.object!a:.100}") from None
    return list(dict.fromkeys(found))


def named(task_ids: Sequence[str]) -> str:
    """Some of the ids, for one line of a log."""
    shown = ", ".join(inline(task_id, 80) for task_id in task_ids[:SHOWN])
    return shown if len(task_ids) <= SHOWN else f"{shown} and {len(task_ids) - SHOWN:,} more"


def stamps_of(headers: Any) -> dict[str, list[str]]:
    """The stamps of `{name: value or values}` or `["name=value", ...]`; TypeError for anything else."""
    if isinstance(headers, Mapping):
        named = {str(name): values for name, values in headers.items()}
        return {name: [str(each) for each in _several(values)] for name, values in named.items()}
    if not isinstance(headers, list | tuple) or not all(isinstance(each, str) and "=" in each for each in headers):
        raise TypeError(f"stamps are {{name: values}} or ['name=value'], not {headers!r:.100}")
    found: dict[str, list[str]] = {}
    for each in headers:
        name, _, value = each.partition("=")
        found.setdefault(name, []).append(value)
    return found


def _several(values: Any) -> Sequence[Any]:
    return list(values) if isinstance(values, list | tuple | set | frozenset) else [values]
