"""A coroutine into which something else may be thrown than asyncio wants to throw."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator


class Throwing:
    """Drives a coroutine as `await` does; exceptions go through `translate` on their way in."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], translate: Callable[[BaseException], BaseException]
    ) -> None:
        self._coroutine = coroutine
        self._translate = translate

    async def run(self) -> Any:
        return await self

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = functools.partial(self._coroutine.send, None)
        while True:
            try:
                waits_for = step()
            except StopIteration as end:
                return end.value
            try:
                answer = yield waits_for
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as error:
                step = functools.partial(self._coroutine.throw, self._translate(error))
            else:
                step = functools.partial(self._coroutine.send, answer)
