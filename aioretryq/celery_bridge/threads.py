"""Threads that stay, and are no more than have been needed at once: Celery has connections of its own in each."""

from __future__ import annotations

import asyncio
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = tuple[Callable[[], Any], asyncio.Future[Any]]


class Threads:
    """To be used from one event loop, which alone knows who is idle.

    An executor asks its threads: one that has just answered may not be idle yet, and another one is started.
    """

    def __init__(self) -> None:
        self._idle: list[_Thread] = []
        self._closed = False

    def run(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run it in a thread. When the future is cancelled the call goes on, and nobody hears of it."""
        answer = asyncio.get_running_loop().create_future()
        thread = self._idle.pop() if self._idle else _Thread(self._answered)
        thread.calls.put((call, answer))
        return answer

    def _answered(
        self, thread: _Thread, answer: asyncio.Future[Any], value: Any, error: BaseException | None
    ) -> None:
        if self._closed:
            thread.calls.put(None)
        else:
            self._idle.append(thread)
        if answer.done():
            return
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)

    def close(self) -> None:
        """Let them end, each as soon as it is idle."""
        self._closed = True
        while self._idle:
            self._idle.pop().calls.put(None)


class _Thread:
    def __init__(self, answered: Callable[..., None]) -> None:
        self.calls: SimpleQueue[Call | None] = SimpleQueue()
        self._answered = answered
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, name="celery-task").start()

    def _work(self) -> None:
        while (given := self.calls.get()) is not None:
            call, answer = given
            value, error = None, None
            try:
                value = call()
            except BaseException as raised:
                error = raised
            try:
                self._loop.call_soon_threadsafe(self._answered, self, answer, value, error)
            except RuntimeError:  # the loop was closed: the call had been abandoned
                return
            del given, call, answer, value, error
