"""Our queue of the tree tests, for `aioretryq worker trees_ours:queue`."""

from __future__ import annotations

import functools
from typing import Any

from canvas.tree_tasks import define
from trees_parts import URL, note

from aioretryq import TaskQueue

queue = TaskQueue(URL)


def task(**options: Any) -> Any:
    """Each as a coroutine: a thread for so little would take most of the time."""

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        async def called(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return queue.task(**options)(called)

    return decorate


define(task, note)
