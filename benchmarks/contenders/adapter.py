"""What the client side of a contender can do. Adapters import the standard library and their contender, no more."""

from __future__ import annotations

import asyncio
from typing import Any

AT_ONCE = 500
"""Calls that are under way at once, where many are made with `asyncio.gather`."""


class Adapter:
    """A module of this package exports one as ADAPTER. Blocking contenders block: nothing else runs beside them."""

    blocking = False
    """Whether the contender's calls block. Then nothing is gained by making them at once."""
    bulk = False
    """Whether it has a way of its own to send many tasks: `send_many` is that one then."""

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Disconnect."""

    def another(self) -> Adapter:
        """A client of its own, with connections of its own."""
        raise NotImplementedError

    async def send(self, task: str, number: int, *more: Any, delay: float | None = None) -> Any:
        """Send `no_op`, `io` or `echo`; returns what `wait` takes. `delay`: seconds until it is due."""
        raise NotImplementedError

    async def wait(self, handle: Any, timeout: float) -> Any:
        """The task's return value, by the contender's quickest documented way; raises after `timeout` seconds."""
        raise NotImplementedError

    async def send_many(self, task: str, numbers: range) -> list[Any]:
        """By the contender's own way to send many, else as `send_at_once`."""
        return await self.send_at_once(task, numbers)

    async def send_at_once(self, task: str, numbers: range, *more: Any) -> list[Any]:
        """Plain sends, at once where they do not block."""
        if self.blocking:
            return [await self.send(task, number, *more) for number in numbers]
        handles: list[Any] = []
        for first in range(0, len(numbers), AT_ONCE):
            handles += await asyncio.gather(
                *[self.send(task, each, *more) for each in numbers[first : first + AT_ONCE]]
            )
        return handles

    async def send_chord(self, numbers: range, body: int) -> Any:
        """Send `no_op` for each of the numbers, and `total`, number `body`, to run with what all of them returned;
        returns what `wait` takes for that one."""
        raise NotImplementedError

    async def collect(self, handles: list[Any], timeout: float) -> list[Any]:
        """All values, in order."""
        if self.blocking:
            return [await self.wait(handle, timeout) for handle in handles]
        return await asyncio.gather(*[self.wait(handle, timeout) for handle in handles])
