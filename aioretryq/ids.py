"""Ids of tasks and messages: random UUIDs (version 4), as texts."""

from __future__ import annotations

import os

_BLOCK = 256
_VERSION = bytes(byte & 0x0F | 0x40 for byte in range(256))
_VARIANT = bytes(byte & 0x3F | 0x80 for byte in range(256))

_made: list[str] = []
os.register_at_fork(after_in_child=_made.clear)  # or parent and child would go on with the same ones


def new_id() -> str:
    """One that nobody has had. Made in blocks: 0.5 us instead of the 2.5 us of `str(uuid.uuid4())`."""
    try:
        return _made.pop()  # one step, whatever threads there are
    except IndexError:
        ids = _block(os.urandom(16 * _BLOCK))
        found = ids.pop()
        _made.extend(ids)
        return found


def _block(random: bytes) -> list[str]:
    numbers = bytearray(random)
    numbers[6::16] = numbers[6::16].translate(_VERSION)
    numbers[8::16] = numbers[8::16].translate(_VARIANT)
    d = numbers.hex()
    return [
        f"{d[i : i + 8]}-{d[i + 8 : i + 12]}-{d[i + 12 : i + 16]}-{d[i + 16 : i + 20]}-{d[i + 20 : i + 32]}"
        for i in range(0, len(d), 32)
    ]
