"""The compressions of Celery's messages and results that need no package."""

from __future__ import annotations

import bz2
import lzma
import zlib

from aioretryq.errors import EncodeError, ProtocolError

MAX_SIZE = 2**30
"""Default limit of decompressed data, in bytes: a kilobyte may claim to be gigabytes."""

GZIP, BZIP2, LZMA = "application/x-gzip", "application/x-bz2", "application/x-lzma"

_NAMES = dict.fromkeys(("gzip", "zlib", GZIP), GZIP)
_NAMES |= dict.fromkeys(("bzip2", "bzip", BZIP2), BZIP2)
_NAMES |= dict.fromkeys(("lzma", "xz", LZMA), LZMA)
_XZ_MEMORY = 2**28  # xz -9 needs 65 MB to read; a forged dictionary size could ask for gigabytes
_ZLIB_OR_GZIP = 47


def content_type(name: str) -> str | None:
    """The wire name of a compression given by any of its names; None if it is not supported."""
    return _NAMES.get(name)


def compress(data: bytes, name: str) -> bytes:
    match content_type(name):
        case "application/x-gzip":
            return zlib.compress(data)  # Celery calls it gzip, but it is a bare zlib stream
        case "application/x-bz2":
            return bz2.compress(data)
        case "application/x-lzma":
            return lzma.compress(data)
    raise EncodeError(f"There is no compression {name!r}; use gzip, bzip2 or lzma.")


def decompress(data: bytes, name: str, max_size: int = MAX_SIZE) -> bytes:
    """Raises ProtocolError for an unsupported compression, broken data, or more than `max_size` bytes."""
    kind = content_type(name)
    if kind is None:
        raise ProtocolError(
            f"The compression {name[:80]!r} is not supported. Have the sender use gzip, bzip2 or lzma, or none."
        )
    try:
        text, complete = _expand(data, kind, max_size + 1)
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
        raise ProtocolError(f"Broken {kind} data: {error}") from error
    if len(text) > max_size:
        raise ProtocolError(f"The data is larger than {max_size:,} bytes when decompressed.")
    if not complete:
        raise ProtocolError(f"Broken {kind} data: it ends too early.")
    return text


def _expand(data: bytes, kind: str, limit: int) -> tuple[bytes, bool]:
    if kind == GZIP:
        stream = zlib.decompressobj(_ZLIB_OR_GZIP)  # some senders write what the name says
        return stream.decompress(data, limit), stream.eof
    blocks = bz2.BZ2Decompressor() if kind == BZIP2 else lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
    return blocks.decompress(data, limit), blocks.eof
