"""How far a workflow is: of all its calls that are known, how many are done, or can never run any more."""

from __future__ import annotations

from bisect import bisect_right
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aioretryq import states
from aioretryq.ids import Ids
from aioretryq.results.eager import EagerResult
from aioretryq.results.many import ManyResults
from aioretryq.results.recorded import whole
from aioretryq.results.result import AsyncResult
from aioretryq.results.tree import line_before
from aioretryq.results.waiting import final, needs_results

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aioretryq.results.waiting import Documents


async def progress(result: AsyncResult[Any]) -> AsyncGenerator[tuple[int, int], None]:
    """See `AsyncResult.progress`."""
    if not isinstance(result, EagerResult):
        needs_results(result.app)
    calls = Calls(await whole(result))
    yield calls.done, calls.total
    if calls.done == calls.total:
        return
    async with aclosing(final(result.app, calls.ids)) as coming:
        async for documents in coming:
            before = calls.done
            calls.take(documents)
            if calls.done > before:
                yield calls.done, calls.total
            if calls.done == calls.total:
                return


@dataclass(eq=False, slots=True)
class _Line:
    """Steps that follow each other, and what they are a member of."""

    within: _Step | None
    end: int = 0


@dataclass(eq=False, slots=True)
class _Step:
    """The calls from `start` to `end`: one, or those of a group."""

    line: _Line
    start: int
    end: int = 0
    failed: bool = False


class Calls:
    """In the order in which they run."""

    def __init__(self, result: Any) -> None:
        self.ids = Ids()
        self._at_hand = 0
        self._over = 0
        self._steps: list[_Step] = []  # those of calls, in their order
        self._seen: set[str] = set()
        self._add(result, None)
        self._is_over = bytearray(len(self.ids))

    @property
    def done(self) -> int:
        return self._at_hand + self._over

    @property
    def total(self) -> int:
        return self._at_hand + len(self.ids)

    def take(self, documents: Documents) -> None:
        """These are final. What follows one that has failed never runs, even if nobody ever says so."""
        for place, document in documents:
            if self._is_over[place]:
                continue
            self._end(place)
            if document.status in states.PROPAGATED:
                self._fail(self._steps[bisect_right(self._steps, place, key=_start) - 1])

    def _fail(self, failed: _Step | None) -> None:
        while failed is not None and not failed.failed:
            failed.failed = True
            for place in range(failed.end, failed.line.end):
                self._end(place)
            failed = failed.line.within

    def _end(self, place: int) -> None:
        if not self._is_over[place]:
            self._is_over[place] = 1
            self._over += 1

    def _add(self, result: Any, within: _Step | None) -> None:
        line = _Line(within)
        for node in [*line_before(result), result]:
            step = _Step(line, len(self.ids))
            if isinstance(node, AsyncResult):
                self._add_call(node, step)
            elif isinstance(node.results, ManyResults) and node.results.ids is not None:
                self._steps.append(step)
                self.ids.extend(node.results.ids)
            else:
                for member in node.results:
                    self._add(member, step)
            step.end = len(self.ids)
        line.end = len(self.ids)

    def _add_call(self, call: AsyncResult[Any], step: _Step) -> None:
        if call._at_hand() is not None:
            self._at_hand += 1
        elif call.id not in self._seen:  # each once
            self._seen.add(call.id)
            self._steps.append(step)
            self.ids.append(call.id)


def _start(step: _Step) -> int:
    return step.start
