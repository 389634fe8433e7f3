"""Workflows by an id: that of the result of the whole, of any step, or of a group that was saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioretryq import states
from aioretryq.drawing.result_trees import Found, Known, Result, Shown, names_of_steps
from aioretryq.results.group import result_from_tuple
from aioretryq.results.recorded import results_of_steps, senders, steps_of
from aioretryq.results.result import AsyncResult

if TYPE_CHECKING:
    from aioretryq.app import TaskQueue
    from aioretryq.drawing.trees import Tree


class Lookup:
    """Looks as often as one likes; what has ended once is not read again."""

    def __init__(self, app: TaskQueue, wanted: str) -> None:
        self._app = app
        self._wanted = wanted
        self._final: dict[str, Known] = {}

    async def tree(self) -> Tree | None:
        """All that is known to belong together; None where nothing is known of that id.

        What aioretryq sent is known by what it has recorded under the id of its result; anything else, as what a
        Celery client has composed, by the tasks that have begun: which has sent which.
        """
        result, names = await self._start()
        if result is None:
            return None
        found = Found(self._app, self._final)
        await found.read(result)
        self._final |= {task_id: known for task_id, known in found.known.items() if known.state in states.FINAL}
        return Shown(found.known, names).line(result, 0)

    async def _start(self) -> tuple[Result | None, dict[str, str]]:
        """Where to begin, and the names that were recorded."""
        results, wanted = self._app.results, self._wanted
        steps = await steps_of(self._app, wanted)
        if steps:
            return results_of_steps(steps, self._app), names_of_steps(steps)
        saved = await results.restore_group(wanted)
        if saved is not None:
            return result_from_tuple(saved, self._app), {}
        if wanted not in self._final and not await results.exists(wanted):
            return None, {}
        first = [wanted, *await senders(self._app, wanted)][-1]
        return AsyncResult(first, self._app), {}
