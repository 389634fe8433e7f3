"""The soft time limit of a coroutine: an exception raised inside of it, where it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from aioretryq.errors import SoftTimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Coroutine


class _Raised(SoftTimeLimitExceeded, asyncio.CancelledError):
    """What the coroutine sees. Also a cancellation, because a task group that it may be waiting in ends its own tasks
    only for one; it never leaves the task, where it would look like one to others."""


async def soft_limit(coroutine: Coroutine[Any, Any, Any], seconds: float) -> Any:
    """What the coroutine returns. After so many seconds SoftTimeLimitExceeded is raised inside of it, once."""
    driver = _Driver(coroutine)
    timer = asyncio.get_running_loop().call_later(seconds, driver.interrupt)
    try:
        return await driver
    except _Raised as raised:
        raise SoftTimeLimitExceeded(seconds).with_traceback(raised.__traceback__) from raised.__cause__
    except BaseExceptionGroup as group:
        if group.split(_Raised)[1] is not None:
            raise
        # The body of a task group was interrupted, and nothing else went wrong in it.
        raise SoftTimeLimitExceeded(seconds).with_traceback(group.__traceback__) from None
    finally:
        timer.cancel()


class _Driver(Generator[Any, Any, Any]):
    """Between the event loop and a coroutine, so that a cancellation of our own can become another exception."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._asked = False

    def interrupt(self) -> None:
        self._asked = True
        self._task.cancel()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, kind: Any, value: Any = None, trace: Any = None, /) -> Any:
        error = value if value is not None else kind
        return self._coroutine.throw(self._translated(error() if isinstance(error, type) else error))

    def close(self) -> None:
        self._coroutine.close()

    def _translated(self, error: BaseException) -> BaseException:
        if not (self._asked and isinstance(error, asyncio.CancelledError)):
            return error
        self._asked = False
        # Somebody else may want the task to end at the same moment; that counts for more.
        return error if self._task.uncancel() else _Raised()
