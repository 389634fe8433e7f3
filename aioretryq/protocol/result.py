"""Result documents: what a backend stores of a task (celery/backends/base.py, _get_result_meta)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from aioretryq import states
from aioretryq.errors import EncodeError, PayloadTooLarge, ProtocolError
from aioretryq.protocol import compression, jsontypes
from aioretryq.protocol.compression import MAX_SIZE
from aioretryq.protocol.content import CONTENT_TYPES, check_accepted, decode_content, encode_content
from aioretryq.protocol.exceptions import exception_from_data, unpickle_with_stand_ins
from aioretryq.protocol.saferepr import saferepr
from aioretryq.protocol.stored import COMPRESSED, decompressed, kind_of, pickled_status, status_of

if TYPE_CHECKING:
    from aioretryq.protocol.security import Security

__all__ = [
    "ResultDocument",
    "ResultFormat",
    "decode_group",
    "decode_result",
    "encode_group",
    "encode_result",
    "exception_of",
    "status_of",
    "value_of",
]

_EXTENDED = ("name", "args", "kwargs", "worker", "retries", "queue")
_BASE = ("status", "result", "traceback", "children", "date_done", "group_id", "parent_id", "task_id")
_BASE_KEYS = frozenset(_BASE)
_OWN = frozenset(_BASE + _EXTENDED)


class ResultFormat(Struct, frozen=True, kw_only=True):
    """How results are written, and what is accepted of them."""

    serializer: str = "json"
    compression: str | None = None
    accept: tuple[str, ...] = ("json",)
    security: Security | None = None
    max_size: int = MAX_SIZE


PLAIN = ResultFormat()


class ResultDocument(Struct, kw_only=True):
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


def encode_result(document: ResultDocument, form: ResultFormat = PLAIN) -> bytes:
    """What a backend keeps: the document in the serializer of `form`, compressed if that says so.

    JSON begins with `{"status":"<STATE>"`, which scripts in Redis rely on. Raises EncodeError for a result that the
    serializer cannot hold, PayloadTooLarge for one of more than `form.max_size` bytes. Extended arguments, and those
    of exceptions, only inform people: what the serializer cannot hold is stored as its repr.
    """
    try:
        data = _encoded(document, form)
    except EncodeError:
        data = _encoded(_informing(document, form), form)
    if len(data) > form.max_size:
        raise PayloadTooLarge(
            f"The result of task {document.task_id} has {len(data):,} bytes; max_payload_bytes is "
            f"{form.max_size:,}. Store large data elsewhere and return its key."
        )
    return _compressed(data, form)


def decode_result(data: bytes, form: ResultFormat = PLAIN) -> ResultDocument:
    """Reads what `encode_result` or Celery stored, compressed or not. Raises ProtocolError, nothing else.

    The serializer is told from the bytes, so that a fleet may change it; it has to be one of `form.accept`.
    """
    fields = _load(data, form)
    get = fields.get
    status = get("status")
    if not isinstance(status, str):
        raise ProtocolError(f"Not the result of a task, it has no status: {data[:80]!r}.")
    document = ResultDocument(
        task_id=_text(get("task_id")) or "",
        status=status,
        result=get("result"),
        traceback=_text(get("traceback")),
        children=_list(get("children")),
        date_done=_moment(get("date_done")),
        group_id=_text(get("group_id")),
        parent_id=_text(get("parent_id")),
    )
    if not fields.keys() <= _BASE_KEYS:
        _add_extended(document, fields)
    return document


def _add_extended(document: ResultDocument, fields: dict[str, Any]) -> None:
    document.name = _text(fields.get("name"))
    document.args, document.kwargs = fields.get("args"), fields.get("kwargs")
    document.worker, document.queue = _text(fields.get("worker")), _text(fields.get("queue"))
    retries = fields.get("retries")
    document.retries = retries if type(retries) is int else None
    document.extra = {key: value for key, value in fields.items() if isinstance(key, str) and key not in _OWN}


def value_of(document: ResultDocument) -> Any:
    """The task's value; for RETRY, FAILURE and REVOKED the exception."""
    if document.status in states.WITH_EXCEPTION:
        return exception_from_data(document.result)
    return document.result


def exception_of(document: ResultDocument) -> Exception | None:
    """The exception of a RETRY, FAILURE or REVOKED; None for other states."""
    return exception_from_data(document.result) if document.status in states.WITH_EXCEPTION else None


def encode_group(tree: Any, form: ResultFormat = PLAIN) -> bytes:
    """What Celery keeps of a group: `{"result": [[group id, parent], [member, ...]]}`."""
    return _compressed(_dump({"result": tree}, form), form)


def decode_group(data: bytes, form: ResultFormat = PLAIN) -> Any:
    """The tree of a group as `encode_group` got it, not checked any further. Raises ProtocolError, nothing else."""
    fields = _load(data, form)
    if "result" not in fields:
        raise ProtocolError(f"Not a group of results: {data[:80]!r}.")
    return fields["result"]


def _encoded(document: ResultDocument, form: ResultFormat) -> bytes:
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
    plain = not document.extra and not _is_extended(document)  # then only the result is somebody else's value
    if not plain:
        _extend(fields, document)
    fields["task_id"] = document.task_id
    if form.serializer == "json":  # nearly all
        return jsontypes.dumps(fields, plain=plain and jsontypes.is_plain(document.result))
    return _dump(fields, form)


def _extend(fields: dict[str, Any], document: ResultDocument) -> None:
    if _is_extended(document):
        fields |= {name: getattr(document, name) for name in _EXTENDED}
    for key, value in document.extra.items():
        fields.setdefault(key, value)


def _is_extended(document: ResultDocument) -> bool:
    called = document.name is not None or document.args is not None or document.kwargs is not None
    return called or document.worker is not None or document.retries is not None or document.queue is not None


def _dump(fields: dict[str, Any], form: ResultFormat) -> bytes:
    return encode_content(fields, CONTENT_TYPES[form.serializer], form.security)[0]


def _compressed(data: bytes, form: ResultFormat) -> bytes:
    if form.compression is None:
        return data
    kind = compression.checked(form.compression)
    return COMPRESSED + kind.encode() + b"\x00" + compression.compress(data, kind)


def _load(data: bytes, form: ResultFormat) -> dict[str, Any]:
    if data.startswith(COMPRESSED):
        data = decompressed(data, form.max_size)
    kind = kind_of(data)
    if kind == "json" and "json" in form.accept:  # nearly all, without a look at each table
        return _checked(jsontypes.loads(data), data)
    check_accepted(kind, form.accept, "result_accept_content")
    try:
        fields = decode_content(data, CONTENT_TYPES[kind], "utf-8", form.accept, form.security)
    except ProtocolError:
        # A class may be missing here which a failed task raised there.
        if kind != "pickle" or pickled_status(data) not in states.WITH_EXCEPTION:
            raise
        fields = unpickle_with_stand_ins(data)
    return _checked(fields, data)


def _checked(fields: Any, data: bytes) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise ProtocolError(f"Not the result of a task: {data[:80]!r}.")
    return fields


def _informing(document: ResultDocument, form: ResultFormat) -> ResultDocument:
    """The document, where what only informs people is something that can be encoded."""

    def shown(value: Any) -> Any:
        try:
            encode_content(value, CONTENT_TYPES[form.serializer], form.security)
        except EncodeError:
            return saferepr(value)
        return value

    found: dict[str, Any] = {name: shown(getattr(document, name)) for name in ("args", "kwargs")}
    result = document.result
    if document.status in states.WITH_EXCEPTION and isinstance(result, dict):
        message = result.get("exc_message")
        if isinstance(message, list):
            found["result"] = {**result, "exc_message": [shown(value) for value in message]}
    return replace(document, **found)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else saferepr(value)


def _list(value: Any) -> list[Any] | None:
    return list(value) if isinstance(value, list | tuple) else None


def _moment(value: Any) -> str | None:
    return value.isoformat() if isinstance(value, datetime) else _text(value)
