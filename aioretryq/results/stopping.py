"""Revoking many tasks together, and stopping whole workflows."""

from __future__ import annotations

from contextlib import aclosing
from itertools import islice
from typing import TYPE_CHECKING, Any

from aioretryq.ids import Ids
from aioretryq.lazy import Lazy
from aioretryq.results.waiting import needs_results, stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.results import recorded
else:
    recorded = Lazy("aioretryq.results.recorded")

AT_ONCE = 1000
"""Ids in one command."""

BIG = 1000
"""Members of a group for which its id is kept instead of theirs: workers remember a limited number of ids."""


class Stopping:
    """Revokes ids, in portions; each only once."""

    def __init__(self, app: TaskQueue, *, terminate: bool, signal: str, wait: bool, timeout: float | None) -> None:
        self._app = app
        self._terminate = terminate
        self._signal = signal
        self._wait = wait
        self._timeout = 1.0 if timeout is None else timeout
        self.seen: set[str] = set()
        self.fresh = Ids()
        """Those that nobody has asked yet what they have sent."""

    async def tasks(self, ids: Iterable[str], group: str | None = None) -> None:
        """`group`: whose members they are, if its id is to stand for theirs."""
        left = (task_id for task_id in ids if task_id not in self.seen)
        while portion := list(dict.fromkeys(islice(left, AT_ONCE))):
            self.seen.update(portion)
            self.fresh.extend(portion)
            await self._app.control.revoke(
                portion,
                terminate=self._terminate,
                signal=self._signal,
                group=group,
                reply=self._wait,
                timeout=self._timeout,
            )

    async def members(self, result: Any) -> None:
        """The task that it is, or those of the group."""
        await self.tasks(result._leaf_ids(), result._group_of_members(BIG))


async def cancel(result: Any) -> None:
    """Whatever is known to belong to the workflows that these are results of. Later steps first: else one may begin
    while those before it are being stopped."""
    app = result.app
    needs_results(app)
    stopping = Stopping(app, terminate=True, signal="SIGTERM", wait=False, timeout=None)
    level: list[Any] = [await recorded.whole(result)]
    while level:
        for node in _nodes(level):
            await stopping.members(node)
        level = await _new_children(app, stopping)


def _nodes(results: list[Any]) -> Iterator[Any]:
    """These, what is before them, and what is before their members; the last ones first."""
    waiting = list(results)
    while waiting:
        node = waiting.pop()
        yield node
        if node.parent is not None:
            waiting.append(node.parent)
        waiting += node._following_others()


async def _new_children(app: TaskQueue, stopping: Stopping) -> list[Any]:
    """What the tasks that were stopped, or are done, have sent, as far as that is stored."""
    ids, stopping.fresh = stopping.fresh, Ids()
    found = []
    async with aclosing(stored(app, ids)) as stored_now:
        async for documents in stored_now:
            for _, document in documents:
                found += [app.result_from_tuple(entry) for entry in document.children or ()]
    return [child for child in found if any(task_id not in stopping.seen for task_id in child._leaf_ids())]


class Stoppable:
    """What stops a task, or all tasks of a set."""

    async def revoke(
        self: Any,
        *,
        terminate: bool = False,
        signal: str = "SIGTERM",
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """The task, or none of the tasks, is to run: dropped where it waits, and its result is REVOKED from now on.

        A task that is running already goes on; `terminate=True` cancels it (within about a second), and `signal` is
        what processes of Celery's workers get then. A result that is final stays as it is. `wait`: for the answers of
        the workers, at most `timeout` seconds (1) for each thousand tasks.
        """
        stopping = Stopping(self.app, terminate=terminate, signal=signal, wait=wait, timeout=timeout)
        await stopping.members(self)

    async def revoke_by_stamped_headers(
        self: Any,
        headers: Mapping[str, Any] | Sequence[str],
        *,
        terminate: bool = False,
        signal: str = "SIGTERM",
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """No task with one of these stamps is to run, here or elsewhere: see `RemoteControl`."""
        within = 1.0 if timeout is None else timeout
        await self.app.control.revoke_by_stamped_headers(
            headers, terminate=terminate, signal=signal, reply=wait, timeout=within
        )

    async def cancel(self: Any) -> None:
        """Stop the workflow that this is the result of: these tasks, those before them, and what they have sent, so
        far as that is known: of a result of which only the id is known here, to what its sender has recorded. What
        runs is cancelled, the rest is not to run; all that is not done is REVOKED, or has failed because something
        before it was. Raises ConfigError where results are not kept.
        """
        await cancel(self)
