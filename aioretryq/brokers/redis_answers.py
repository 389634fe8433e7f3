"""What was asked of the server and not answered, so that asking again does no harm.

A reply may be lost while the server has done its work, or does it later: what a frozen server finds in its sockets
when it goes on, it still carries out.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REMEMBERED = 100
"""Batches whose answer was lost: who wants to know asks again soon."""


class Answers:
    """Numbers batches: the server answers a number that it has seen before as it did the first time.

    It keeps one short text for each batch until a later batch tells that the answer arrived.
    """

    def __init__(self) -> None:
        self._last = 0
        self._lost: dict[tuple[str, ...], int] = {}
        self._arrived: list[int] = []

    @contextlib.contextmanager
    def batch(self, *receipts: str) -> Iterator[list[int]]:
        """The arguments of a script: number of the batch, how many answers have arrived, and their numbers."""
        number, arrived = self._lost.pop(receipts, 0), self._arrived
        if not number:
            number = self._last = self._last + 1
        self._arrived = []
        try:
            yield [number, len(arrived), *arrived]
        except BaseException:
            self._arrived += arrived
            self._lost[receipts] = number
            if len(self._lost) > REMEMBERED:
                # Nobody will ask for it: the server may forget it too.
                self._arrived.append(self._lost.pop(next(iter(self._lost))))
            raise
        self._arrived.append(number)


class ClaimRange(Struct, frozen=True):
    """The tags that one claim may have given: those after `first`, up to `last`."""

    first: int
    last: int
    queues: Sequence[str]
