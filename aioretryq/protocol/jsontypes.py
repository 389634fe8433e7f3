"""User values as JSON, with kombu's extension for types that JSON does not have.

A value of such a type travels as `{"__type__": T, "__value__": V}`. The corner cases of the standard library's codec
(integer keys, NaN, integers of any size) are what Celery's peers write and expect. What they do alike msgspec
reads, and orjson writes, many times faster.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Coroutine
from datetime import date, datetime, time
from decimal import Decimal
from itertools import repeat
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import orjson

from aioretryq.errors import EncodeError, ProtocolError
from aioretryq.protocol.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Callable

_MARK = '"__type__"'
_MARK_BYTES = _MARK.encode()
_PAIR = frozenset({"__type__", "__value__"})
_PLAIN = frozenset({str, bool, int, type(None)})
_LARGE = 4096
"""Items from which on making sure that orjson would do the same takes longer than it saves."""
_DEEP = 32
_FAST_DECODER = msgspec.json.Decoder()


def dumps(value: Any, *, plain: bool = False) -> bytes:
    """JSON as Celery's peers read it. Raises EncodeError. `plain`: the caller knows that it `is_plain`."""
    if plain or is_plain(value):
        try:
            return orjson.dumps(value)
        except orjson.JSONEncodeError:  # a lone surrogate, a large integer, a key that is no text
            pass
    try:
        return _ENCODER.encode(value).encode()
    except EncodeError:
        raise
    except Exception as error:  # whatever a container of the user's own raises while it is read
        raise EncodeError(
            f"{saferepr(value, 200)} cannot be written as JSON: {type(error).__name__}: {error}. "
            "Pass plain data: dicts with text keys, lists, texts, numbers."
        ) from error


def loads(data: bytes | str) -> Any:
    """The value of what `dumps`, or a Celery peer, wrote. Raises ProtocolError."""
    if type(data) is bytes and _MARK_BYTES not in data:
        try:
            return _FAST_DECODER.decode(data)
        except (ValueError, RecursionError):  # NaN, infinity, a lone surrogate, or no JSON at all
            pass
    try:
        text = data if isinstance(data, str) else data.decode()
        # Most documents have no extended type, and a hook costs a call for every object in them.
        return (_TYPED_DECODER if _MARK in text else _DECODER).decode(text)
    except ProtocolError:
        raise
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"Not JSON that can be read: {error}. It begins with {data[:80]!r}.") from error


def has_types(data: bytes) -> bool:
    """Whether values of types that JSON does not have may be in it."""
    return _MARK_BYTES in data


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether orjson writes this value as the standard library does, or refuses to."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is float:  # NaN and infinities fail the comparison too
        return bool(-(2**63) < value < 2**63)
    if kind is dict:
        value = value.values()
    elif kind is not list and kind is not tuple:
        return False
    if depth == _DEEP or len(value) > _LARGE:
        return False
    if _PLAIN.issuperset(map(type, value)):  # nearly always
        return True
    rest = [item for item in value if type(item) not in _PLAIN]
    return all(map(is_plain, rest, repeat(depth + 1)))


def _as_json(value: Any) -> Any:
    """What the encoder asks for when it meets a type that JSON does not have."""
    try:
        reducer = getattr(value, "__json__", None)
        if reducer is not None:
            return reducer()
    except Exception as error:
        raise EncodeError(f"__json__() of {_describe(value)} failed: {type(error).__name__}: {error}") from error
    for kind, mark, encode in _ENCODERS:
        if isinstance(value, kind):
            return {"__type__": mark, "__value__": encode(value)}
    if isinstance(value, bytes):
        return _bytes_as_json(value)
    if isinstance(value, Coroutine):
        raise EncodeError(f"{_describe(value)} cannot be written as JSON: an `await` is missing before what made it.")
    if isinstance(value, Awaitable):
        raise EncodeError(
            f"{_describe(value)} cannot be written as JSON. Pass its value instead, `await` it, or its `id`."
        )
    raise EncodeError(
        f"{_describe(value)} cannot be written as JSON. Pass plain data instead "
        "(a list for a set, an id for an object), or give the class a __json__() method that returns plain data."
    )


def _bytes_as_json(value: bytes) -> dict[str, str]:
    try:
        return {"__type__": "bytes", "__value__": value.decode()}
    except UnicodeDecodeError:
        return {"__type__": "base64", "__value__": base64.b64encode(value).decode()}


def _describe(value: object) -> str:
    kind = type(value)
    return f"A value of type {kind.__module__}.{kind.__qualname__} ({saferepr(value, 100)})"


def _from_json(found: dict[str, Any]) -> Any:
    if found.keys() != _PAIR:
        return found
    mark, value = found["__type__"], found["__value__"]
    decode = _DECODERS.get(mark) if isinstance(mark, str) else None
    if decode is None:
        raise ProtocolError(f"Unknown __type__ {saferepr(mark, 80)}; known are {', '.join(sorted(_DECODERS))}.")
    try:
        return decode(value)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ProtocolError(f"{saferepr(value, 80)} is not a {mark}: {error}") from error


# datetime comes before date, whose subclass it is.
_ENCODERS: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (datetime, "datetime", datetime.isoformat),
    (date, "date", date.isoformat),
    (time, "time", time.isoformat),
    (Decimal, "decimal", str),
    (UUID, "uuid", lambda value: {"hex": value.hex}),
)
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": lambda text: datetime.fromisoformat(text).date(),  # peers may send a time with it
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": lambda fields: UUID(hex=fields["hex"]),
    "bytes": lambda text: text.encode(),
    "base64": lambda text: base64.b64decode(text),
}
_ENCODER = json.JSONEncoder(default=_as_json)
_DECODER = json.JSONDecoder()
_TYPED_DECODER = json.JSONDecoder(object_hook=_from_json)
