"""Lamport's clock: orders what several nodes do without trusting their wall clocks (kombu/clocks.py)."""

from __future__ import annotations

import threading

_LARGEST = 2**48
"""A clock that ticks a million times a second gets there in nine years. Whoever sends more means harm: from 2^53 on
other readers of JSON get it wrong, from 2^64 on it cannot be written."""


class Clock:
    """One for each node, shared by all that sends and hears: events, requests, replies. Any thread may use it."""

    def __init__(self, value: int = 0) -> None:
        self._value = value
        self._lock = threading.Lock()

    @property
    def value(self) -> int:
        return self._value

    def forward(self) -> int:
        """The time of something that happens here, now."""
        with self._lock:
            self._value += 1
            return self._value

    def adjust(self, other: object) -> int:
        """Something with the time `other` was heard of; what is no sane time is ignored."""
        heard = other if type(other) is int and 0 <= other < _LARGEST else 0
        with self._lock:
            self._value = max(self._value, heard) + 1
            return self._value
