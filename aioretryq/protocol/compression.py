"""The compressions of Celery's messages and results."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Any

from aioretryq.errors import ConfigError, EncodeError, ProtocolError, did_you_mean
from aioretryq.protocol.packages import PACKAGES, MissingPackage, is_installed, package

MAX_SIZE = 2**30
"""Default limit of decompressed data, in bytes: a kilobyte may claim to be gigabytes."""

GZIP, BZIP2, LZMA = "application/x-gzip", "application/x-bz2", "application/x-lzma"
BROTLI, ZSTD = "application/x-brotli", "application/zstd"

_SHORT = {GZIP: "gzip", BZIP2: "bzip2", LZMA: "lzma", BROTLI: "brotli", ZSTD: "zstd"}
_NAMES = dict.fromkeys(("gzip", "zlib", GZIP), GZIP)
_NAMES |= dict.fromkeys(("bzip2", "bzip", BZIP2), BZIP2)
_NAMES |= dict.fromkeys(("lzma", "xz", LZMA), LZMA)
_NAMES |= dict.fromkeys(("brotli", BROTLI), BROTLI)
_NAMES |= dict.fromkeys(("zstd", "zstandard", ZSTD), ZSTD)
_XZ_MEMORY = 2**28  # xz -9 needs 65 MB to read; a forged dictionary size could ask for gigabytes
_ZLIB_OR_GZIP = 47


def content_type(name: str) -> str | None:
    """The wire name of a compression given by any of its names; None if it is not supported."""
    return _NAMES.get(name)


def checked(name: str) -> str:
    """The wire name; ConfigError, with what is installed, for one that is unknown or lacks its package."""
    kind = content_type(name)
    if kind is None:
        raise ConfigError(f"There is no compression {name!r}.{did_you_mean(name, _NAMES)} {_installed()}")
    short = _SHORT[kind]
    if short in PACKAGES:
        try:
            package(short)
        except MissingPackage as error:
            raise ConfigError(f"The compression {error} {_installed()}") from error
    return kind


def _installed() -> str:
    return f"Installed are: {', '.join(filter(is_installed, _SHORT.values()))}."


def compress(data: bytes, name: str) -> bytes:
    try:
        packed: bytes = _compressor(name)(data)
        return packed
    except MissingPackage as error:
        raise EncodeError(f"The compression {error}") from error


def _compressor(name: str) -> Any:
    match content_type(name):
        case "application/x-gzip":
            return zlib.compress  # Celery calls it gzip, but it is a bare zlib stream
        case "application/x-bz2":
            return bz2.compress
        case "application/x-lzma":
            return lzma.compress
        case "application/x-brotli":
            return package("brotli").compress
        case "application/zstd":
            return package("zstd").compress
    raise EncodeError(f"There is no compression {name!r}; use one of {', '.join(_SHORT.values())}.")


def decompress(data: bytes, name: str, max_size: int = MAX_SIZE) -> bytes:
    """Raises ProtocolError for an unsupported compression, broken data, or more than `max_size` bytes."""
    kind = content_type(name)
    if kind is None:
        raise ProtocolError(
            f"The compression {name[:80]!r} is not supported. "
            f"Have the sender use one of {', '.join(_SHORT.values())}, or none."
        )
    try:
        text, complete = _expand(data, kind, max_size + 1)
    except MissingPackage as error:
        raise ProtocolError(f"Compressed data cannot be read: {error}") from error
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
    if kind == BROTLI:
        return _expand_brotli(data, limit)
    if kind == ZSTD:
        return _expand_zstd(data, limit)
    blocks = bz2.BZ2Decompressor() if kind == BZIP2 else lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
    return blocks.decompress(data, limit), blocks.eof


def _expand_brotli(data: bytes, limit: int) -> tuple[bytes, bool]:
    brotli = package("brotli")
    stream = brotli.Decompressor()
    try:
        text: bytes = stream.process(data, output_buffer_limit=limit)
    except brotli.error as error:
        raise ValueError(str(error)) from error
    except TypeError as error:
        raise ValueError("the installed brotli is too old, its output cannot be limited: install 1.2") from error
    return text, bool(stream.is_finished())


def _expand_zstd(data: bytes, limit: int) -> tuple[bytes, bool]:
    zstd = package("zstd")
    stream = zstd.ZstdDecompressor()
    try:
        text: bytes = stream.decompress(data, limit)
    except zstd.ZstdError as error:
        raise ValueError(str(error)) from error
    return text, bool(stream.eof)
