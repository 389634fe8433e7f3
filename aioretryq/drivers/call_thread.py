"""A thread that runs one call after the other, for coroutines that wait for them.

What a ThreadPoolExecutor of one and `asyncio.wrap_future` do, at less than half the cost of a hand-over (40 us of CPU
time instead of 95), which is most of what a small transaction costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

R = TypeVar("R")


class CallThread:
    """Serves any number of event loops. Ends after `close`, with the last reference to it, or with the program."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        # A daemon: who forgets to close must still be able to leave. It knows the queue only, not this object.
        Thread(target=_run, args=(self._calls,), name=name, daemon=True).start()
        self._end = weakref.finalize(self, self._calls.put, None)
        self._end.atexit = False

    def submit(self, call: Callable[[], R]) -> asyncio.Future[R]:
        """Have it run after all that was submitted before. Cancelled before it has begun, it is left out."""
        entry = _Call(call)
        self._calls.put(entry)
        return entry.future

    def close(self) -> None:
        """No more calls; those submitted before are still run."""
        self._end()


class _Call:
    """Within `with` whatever comes of it, value or error, is told to the loop that waits."""

    __slots__ = ("call", "future", "loop", "value")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.value: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(_tell, self.future, self.value, error)
        return True


def _run(calls: SimpleQueue[_Call | None]) -> None:
    while (entry := calls.get()) is not None:
        if not entry.future.cancelled():
            with entry:
                entry.value = entry.call()
        del entry  # what waits for the next call must not keep the last one alive


def _tell(future: asyncio.Future[Any], value: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
