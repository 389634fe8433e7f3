"""Result documents: what a backend stores of a task (celery/backends/base.py, _get_result_meta)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aioretryq import states
from aioretryq.errors import EncodeError, ProtocolError
from aioretryq.protocol import compression, jsontypes
from aioretryq.protocol.exceptions import exception_from_data
from aioretryq.protocol.saferepr import saferepr

_COMPRESSED = b"\x00celery-compressed\x00"
_STATUS = b'{"status": "'
_EXTENDED = ("name", "args", "kwargs", "worker", "retries", "queue")
_BASE = ("status", "result", "traceback", "children", "date_done", "group_id", "parent_id", "task_id")
_OWN = frozenset(_BASE + _EXTENDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultDocument:
    """What is known of a task. `result` is as stored: the exception of a failed task is still data.

    `name` to `queue` are Celery's extended result: stored, all six, as soon as one of them is not None.
    `children` is Celery's `[[[id, parent], null], ...]`. `extra` holds all other keys of the document:
    stamps, and what newer writers add.
    """

    task_id: str
    status: str
    result: Any = None
    traceback: str | None = None
    children: list[Any] | None = None
    date_done: str | None = None
    group_id: str | None = None
    parent_id: str | None = None
    name: str | None = None
    args: Any = None
    kwargs: Any = None
    worker: str | None = None
    retries: int | None = None
    queue: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def encode_result(document: ResultDocument) -> bytes:
    """JSON that begins with `{"status": "<STATE>"`, which scripts in Redis rely on.

    Raises EncodeError for a result that JSON cannot hold. Extended arguments only inform people: those
    that JSON cannot hold are stored as their repr.
    """
    try:
        return jsontypes.dumps(_fields(document))
    except EncodeError:
        shown = {name: _shown(getattr(document, name)) for name in ("args", "kwargs")}
        return jsontypes.dumps(_fields(dataclasses.replace(document, **shown)))


def decode_result(data: bytes) -> ResultDocument:
    """Reads what `encode_result` or Celery stored, compressed or not. Raises ProtocolError, nothing else."""
    fields = _load(data)
    status = fields.get("status")
    if not isinstance(status, str):
        raise ProtocolError(f"Not the result of a task, it has no status: {data[:80]!r}.")
    children, done = fields.get("children"), fields.get("date_done")
    retries = fields.get("retries")
    return ResultDocument(
        task_id=_text(fields.get("task_id")) or "",
        status=status,
        result=fields.get("result"),
        traceback=_text(fields.get("traceback")),
        children=children if isinstance(children, list) else None,
        date_done=done.isoformat() if isinstance(done, datetime) else _text(done),
        group_id=_text(fields.get("group_id")),
        parent_id=_text(fields.get("parent_id")),
        name=_text(fields.get("name")),
        args=fields.get("args"),
        kwargs=fields.get("kwargs"),
        worker=_text(fields.get("worker")),
        retries=retries if type(retries) is int else None,
        queue=_text(fields.get("queue")),
        extra={key: value for key, value in fields.items() if key not in _OWN},
    )


def value_of(document: ResultDocument) -> Any:
    """The task's value; for RETRY, FAILURE and REVOKED the exception."""
    if document.status in states.WITH_EXCEPTION:
        return exception_from_data(document.result)
    return document.result


def exception_of(document: ResultDocument) -> Exception | None:
    """The exception of a RETRY, FAILURE or REVOKED; None for other states."""
    return exception_from_data(document.result) if document.status in states.WITH_EXCEPTION else None


def status_of(data: bytes) -> str | None:
    """The status of a stored document, read without decoding all of it where possible; None if unreadable."""
    try:
        if data.startswith(_STATUS):
            status, closing, _ = data[len(_STATUS) : len(_STATUS) + 64].partition(b'"')
            if closing and b"\\" not in status:
                return status.decode()
        status_field = _load(data).get("status")
    except (ProtocolError, UnicodeDecodeError):
        return None
    return status_field if isinstance(status_field, str) else None


def _fields(document: ResultDocument) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "status": document.status,
        "result": document.result,
        "traceback": document.traceback,
        "children": document.children,
        "date_done": document.date_done,
    }
    if document.group_id is not None:
        fields["group_id"] = document.group_id
    if document.parent_id is not None:
        fields["parent_id"] = document.parent_id
    extended = {name: getattr(document, name) for name in _EXTENDED}
    if any(value is not None for value in extended.values()):
        fields |= extended
    for key, value in document.extra.items():
        fields.setdefault(key, value)
    fields["task_id"] = document.task_id
    return fields


def _load(data: bytes) -> dict[str, Any]:
    if data.startswith(_COMPRESSED):
        name, _, data = data[len(_COMPRESSED) :].partition(b"\x00")
        data = compression.decompress(data, name.decode("ascii", "replace"))
    fields = jsontypes.loads(data)
    if not isinstance(fields, dict):
        raise ProtocolError(f"Not the result of a task: {data[:80]!r}.")
    return fields


def _shown(value: Any) -> Any:
    try:
        jsontypes.dumps(value)
    except EncodeError:
        return saferepr(value)
    return value


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else saferepr(value)
