"""Serializers of message bodies: JSON, and pickle for those who allow it."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from aioretryq.errors import ContentDisallowed, EncodeError, ProtocolError
from aioretryq.protocol import jsontypes
from aioretryq.protocol.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Collection

JSON, PICKLE = "application/json", "application/x-python-serialize"

CONTENT_TYPES: dict[str, str] = {"json": JSON, "pickle": PICKLE}
"""Serializers by the name that settings use."""

_SHORT = {mime: name for name, mime in CONTENT_TYPES.items()}
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "binary", ""})
_OTHER_ENCODINGS = frozenset({"latin-1", "latin1", "iso-8859-1", "utf-16", "utf-32"})
_PICKLE_PROTOCOL = 4  # Celery's peers may run an older Python than ours


def encode_content(value: Any, content_type: str) -> tuple[bytes, str]:
    """The bytes and their content encoding. Raises EncodeError."""
    if content_type == JSON:
        return jsontypes.dumps(value), "utf-8"
    if content_type == PICKLE:
        try:
            return pickle.dumps(value, _PICKLE_PROTOCOL), "binary"
        except Exception as error:  # __reduce__ is the user's own code
            raise EncodeError(
                f"{saferepr(value, 200)} cannot be pickled: {type(error).__name__}: {error}. Pass plain data instead."
            ) from error
    raise EncodeError(f"There is no serializer for {content_type!r}; use json or pickle (`task_serializer`).")


def decode_content(data: bytes, content_type: str, encoding: str, accept_content: Collection[str]) -> Any:
    """The value of a body. Raises ContentDisallowed for what is not accepted, else ProtocolError.

    `accept_content` has short names (`json`) or content types (`application/json`).
    """
    name = _SHORT.get(content_type)
    if name is None:
        raise ProtocolError(
            f"A body of type {content_type[:80]!r} cannot be read; have the sender use task_serializer='json'."
        )
    if name not in accept_content and content_type not in accept_content:
        raise ContentDisallowed(
            f"Refused a body serialised with {name}: the setting accept_content allows only "
            f"{', '.join(sorted(accept_content)) or 'nothing'}. Have the sender use another serializer, or add "
            f"{name!r} to accept_content{' if you trust everyone who can write to the broker' * (name == 'pickle')}."
        )
    if name == "json":
        return jsontypes.loads(_decoded(data, encoding.lower()))
    try:
        return pickle.loads(data)  # allowed above, by a setting that is off by default
    except Exception as error:  # a pickle runs code, which raises what it likes
        raise ProtocolError(f"Not a pickle that can be read here: {type(error).__name__}: {error}") from error


def _decoded(data: bytes, encoding: str) -> bytes | str:
    if encoding in _UTF8:
        return data
    if encoding not in _OTHER_ENCODINGS:
        raise ProtocolError(f"Unknown content-encoding {encoding[:80]!r}; have the sender use utf-8.")
    try:
        return data.decode(encoding)
    except ValueError as error:
        raise ProtocolError(f"The body is not {encoding}: {error}") from error
