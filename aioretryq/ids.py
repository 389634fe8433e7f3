"""Ids of tasks and messages: random UUIDs (version 4), as texts."""

from __future__ import annotations

import os

_BLOCK = 256
_VERSION = bytes(byte & 0x0F | 0x40 for byte in range(256))
_VARIANT = bytes(byte & 0x3F | 0x80 for byte in range(256))

_LENGTH = 36
_PLACES = [place for place in range(_LENGTH) if place not in (8, 13, 18, 23)]

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


def ids_of(numbers: bytes | bytearray) -> list[str]:
    """Texts of the UUIDs that lie there one after the other. Of hundreds 0.2 us each, where `UUID` takes 3: all their
    first digits are put in place at once, then all second ones."""
    digits = numbers.hex().encode()
    text = bytearray(b"-") * (_LENGTH * (len(numbers) // 16))
    for number, place in enumerate(_PLACES):
        text[place::_LENGTH] = digits[number::32]
    joined = text.decode()
    return [joined[at : at + _LENGTH] for at in range(0, len(joined), _LENGTH)]


def _block(random: bytes) -> list[str]:
    numbers = bytearray(random)
    numbers[6::16] = numbers[6::16].translate(_VERSION)
    numbers[8::16] = numbers[8::16].translate(_VARIANT)
    return ids_of(numbers)
