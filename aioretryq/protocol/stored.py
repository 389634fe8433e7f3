"""What can be told of a stored result without decoding it: its serializer, and its status."""

from __future__ import annotations

import itertools
import pickletools
import re
import struct
from contextlib import suppress

from aioretryq.errors import ProtocolError
from aioretryq.protocol import compression, jsontypes
from aioretryq.protocol.security import signed_body

COMPRESSED = b"\x00celery-compressed\x00"
"""What a compressed document begins with; then follow the content type of the compression, a zero, and its bytes."""

_STATUS = re.compile(rb'\{"status": ?"([^"\\]{0,60})"')
# Celery's documents have the status first, or in YAML, whose keys are sorted, at the beginning of a line.
_MSGPACK_STATUS = re.compile(rb"(?:[\x81-\x8f]|\xde..|\xdf....)\xa6status[\xa0-\xbf]", re.DOTALL)
_YAML_STATUS = re.compile(rb"^status: ['\"]?([^'\"\r\n]+)", re.MULTILINE)
_YAML = re.compile(rb"(?:---\s+)?[a-z_]+:(?:\s|\Z)")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{64}")
_PICKLED_TEXTS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_STATUS_WITHIN = 64  # operations of a pickle


def status_of(data: bytes) -> str | None:
    """The status of a stored document, whatever its serializer; None if unreadable.

    Reads no more than it has to, verifies nothing, and runs no code: not even of a pickle.
    """
    try:
        return _status(data)
    except (ProtocolError, UnicodeDecodeError):
        return None


def _status(data: bytes) -> str | None:
    if found := _STATUS.match(data):  # nearly all
        return found[1].decode()
    if data.startswith(COMPRESSED):
        return _status(decompressed(data, compression.MAX_SIZE))
    match kind_of(data):
        case "pickle":
            return pickled_status(data)
        case "msgpack":
            packed = _MSGPACK_STATUS.match(data)
            return data[packed.end() : packed.end() + (data[packed.end() - 1] & 0x1F)].decode() if packed else None
        case "yaml":
            line = _YAML_STATUS.search(data)
            return line[1].decode() if line else None
        case "auth":
            inner = signed_body(data)
            return None if inner is None or kind_of(inner) == "auth" else _status(inner)
    fields = jsontypes.loads(data)
    status_field = fields.get("status") if isinstance(fields, dict) else None
    return status_field if isinstance(status_field, str) else None


def pickled_status(data: bytes) -> str | None:
    """The text after the first text "status", in what a pickle would do; nothing of it is done."""
    found = False
    with suppress(ValueError, LookupError, struct.error, OverflowError):
        for opcode, value, _ in itertools.islice(pickletools.genops(data), _STATUS_WITHIN):
            if opcode.name in _PICKLED_TEXTS and isinstance(value, str):
                if found:
                    return value
                found = value == "status"
    return None


def kind_of(data: bytes) -> str:
    """The serializer whose bytes these seem to be. What is none of any is taken for JSON."""
    if data.startswith(b"{"):  # nearly all
        return "json"
    if data[:1] == b"\x80" and data[1:2] <= b"\x05" and len(data) > 1:
        return "pickle"
    if data[:1] and (0x81 <= data[0] <= 0x8F or data[0] in (0xDE, 0xDF)):
        return "msgpack"
    if _YAML.match(data):
        return "yaml"
    return "auth" if _BASE64.match(data) and signed_body(data) is not None else "json"


def decompressed(data: bytes, limit: int) -> bytes:
    """What is behind the marker of a compressed document. Raises ProtocolError."""
    name, _, packed = data[len(COMPRESSED) :].partition(b"\x00")
    return compression.decompress(packed, name.decode("ascii", "replace"), limit)
