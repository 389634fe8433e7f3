"""Results as their callers hold them: everything that needs I/O is awaited."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

import anyio

from aioretryq import states
from aioretryq.calling import is_text
from aioretryq.errors import ResultTimeout
from aioretryq.lazy import Lazy
from aioretryq.protocol.result import ResultDocument, value_of
from aioretryq.results.stopping import Stoppable
from aioretryq.results.tree import Tree, ids_before, line_before
from aioretryq.results.waiting import PROMPT, raise_failure, unless_failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.results import progress
    from aioretryq.results.group import GroupResult
else:
    progress = Lazy("aioretryq.results.progress")

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Update:
    """One state of a task, as `updates()` yields it. `result` is a value, progress data, or an exception."""

    status: str
    result: Any


class AsyncResult(Tree, Stoppable, Generic[R]):
    """The result of a task that was sent. Costs nothing until it is asked for something."""

    def __init__(
        self, task_id: str, app: TaskQueue, *, parent: AsyncResult[Any] | GroupResult[Any] | None = None
    ) -> None:
        if not isinstance(task_id, str):
            raise TypeError(f"The id of a task is a text, not {task_id!r}; use str(...).")
        if not is_text(task_id):
            raise ValueError(f"The id of a task is a text that can be sent to a server, not {task_id!r}.")
        self.id = task_id
        """Of the task. Also what `str(result)` is."""
        self.app = app
        """The queue that it was made with."""
        self.parent = parent
        """The result of what is before it in a workflow, if that is known: see `TaskQueue.workflow`."""
        self.ignored = False
        """Nothing is stored of it: it counts as done, with None as its value."""
        self.just_sent = False  # until somebody waits
        self._known: ResultDocument | None = None  # the final one, where it came with others

    def __repr__(self) -> str:
        return f"<AsyncResult {self.id}>"

    def __str__(self) -> str:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __await__(self) -> Generator[Any, None, R]:
        return self.get().__await__()

    @property
    def task_id(self) -> str:
        """Another name of `id`."""
        return self.id

    @property
    def backend(self) -> Any:
        """The result backend in use."""
        return self.app.results.backend

    @overload
    async def get(
        self, timeout: float | None = None, *, propagate: Literal[True] = True, follow_parents: bool = True
    ) -> R: ...
    @overload
    async def get(
        self, timeout: float | None = None, *, propagate: bool, follow_parents: bool = True
    ) -> R | BaseException: ...
    async def get(
        self, timeout: float | None = None, *, propagate: bool = True, follow_parents: bool = True
    ) -> R | BaseException:
        """Wait for the task and return its value.

        Raises the task's own exception (with `propagate=False` it is returned), ResultTimeout after
        `timeout` seconds; with `timeout=0` it looks once and does not wait. A waiter may be cancelled at any moment;
        the task does not notice.

        Where the task follows others in a chain (`parent`), it never runs once one of them has failed: the exception
        of that one is raised, unless `follow_parents=False`.
        """
        if self.ignored:
            return cast("R", None)
        parents = ids_before([self]) if self.parent is not None and propagate and follow_parents else ()
        document = await (self._after(parents, timeout) if parents else self._done(timeout))
        value: R | BaseException = self._value(document, propagate)
        return value

    async def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], object] | None = None) -> Any:
        """The value of now, without waiting (see `result`); raises the exception of a task that has failed.

        `callback` is called with id and value.
        """
        value = self._value(await self._meta(), propagate)
        if callback is not None:
            callback(self.id, value)
        return value

    async def throw(self) -> None:
        """Raises the exception of a task that has failed."""
        await self.maybe_throw()

    async def finished(self) -> None:
        """Wait until the task is done, whatever came of it."""
        if not self.ignored:
            await self._final()

    async def updates(self) -> AsyncIterator[Update]:
        """The task's states as they come (STARTED, PROGRESS, RETRY, ...), the final one last.

        States that follow each other quickly may be skipped; the final one never is. Nothing comes of a task
        whose result is ignored.
        """
        if self.ignored:
            return
        if (known := self.app.results.cached(self.id)) is not None:
            yield Update(known.status, value_of(known))
            return
        with self.app.watch(self.id) as watch:
            while True:
                document = self.app.results.read(self.id, await watch.next())
                yield Update(document.status, value_of(document))
                if document.status in states.FINAL:
                    return

    async def progress(self) -> AsyncIterator[tuple[int, int]]:
        """(How many calls of the workflow are done, of how many), as it changes; ends when all are.

        Counted are this task, all that is before it, and members of groups, as far as they are known: here, or to
        what its sender has recorded (`result_save_workflows`). What follows a failed call never runs, and counts as
        done. Raises ConfigError where results are not kept.
        """
        async with aclosing(progress.progress(self)) as coming:
            async for each in coming:
                yield each

    async def _final(self, timeout: float | None = None) -> ResultDocument:
        results = self.app.results
        if (known := self._known or results.cached(self.id)) is not None:
            return known
        just_sent, self.just_sent = self.just_sent, False
        with self.app.watch(self.id, just_sent=just_sent) as watch:
            if timeout is not None:
                watch.fail_after(timeout)
            while True:
                try:
                    newest = await watch.next()
                except TimeoutError:
                    raise self._too_late(timeout) from None
                document = results.read(self.id, newest)
                if document.status in states.FINAL:
                    return document

    async def _done(self, timeout: float | None) -> ResultDocument:
        if timeout is None or timeout > 0:
            return await self._final(timeout)
        document = await self._meta()
        if document.status not in states.FINAL:
            raise self._too_late(timeout)
        return document

    async def _after(self, parents: Sequence[str], timeout: float | None) -> ResultDocument:
        """Of the exception of one of those before it, and of its own, the former is why."""
        at_once = timeout is not None and timeout <= 0
        with anyio.move_on_after(None if at_once else timeout):
            if len(parents) <= PROMPT:
                await raise_failure(self.app, parents)
            try:
                document = await (self._done(0) if at_once else unless_failed(self.app, parents, self._final()))
            except ResultTimeout:
                await raise_failure(self.app, parents)
                raise
            if document.status in states.PROPAGATED:
                await raise_failure(self.app, parents)
            return document
        raise self._too_late(timeout)

    def _too_late(self, timeout: float | None) -> ResultTimeout:
        return ResultTimeout(f"Task {self.id} was not done within {timeout} s; it goes on all the same.")

    def _value(self, document: ResultDocument, propagate: bool) -> Any:
        value = value_of(document)
        if propagate and document.status in states.PROPAGATED:
            raise value
        return value

    async def _meta(self) -> ResultDocument:
        return self._known or await self.app.results.get_task_meta(self.id)

    def _know(self, document: ResultDocument) -> None:
        """The final document has come, with others: nobody has to ask for it again."""
        self._known = document

    def _at_hand(self) -> tuple[str, Any] | None:
        """State and value, where nobody has to wait for them."""
        if self.ignored:
            return states.SUCCESS, None
        return None if self._known is None else (self._known.status, value_of(self._known))

    async def status(self) -> str:
        """PENDING, STARTED, RETRY, SUCCESS, FAILURE, REVOKED, or a state of the task's own."""
        return (await self._meta()).status

    async def state(self) -> str:
        """Celery's other name for `status`."""
        return await self.status()

    async def result(self) -> Any:
        """The value, the exception, or the data of a state of the task's own; None while pending."""
        return value_of(await self._meta())

    async def info(self) -> Any:
        """Celery's other name for `result`."""
        return await self.result()

    async def traceback(self) -> str | None:
        """Of a task that has failed, or is to be retried, as text."""
        return (await self._meta()).traceback

    async def children(self) -> list[AsyncResult[Any] | GroupResult[Any]]:
        """Results of the tasks and groups that this one has sent."""
        return self._children(await self._meta())

    def _children(self, document: ResultDocument) -> list[AsyncResult[Any] | GroupResult[Any]]:
        results = [self.app.result_from_tuple(entry) for entry in document.children or ()]
        # A retried Celery task lists itself: following that would never end.
        return [each for each in results if each != self]

    async def _children_if_done(self) -> list[AsyncResult[Any] | GroupResult[Any]] | None:
        document = await self._meta()
        return self._children(document) if document.status in states.FINAL else None

    async def date_done(self) -> str | None:
        """When the final state was reached: ISO 8601 text."""
        return (await self._meta()).date_done

    async def name(self) -> str | None:
        """The name of the task; stored with `result_extended` only."""
        return (await self._meta()).name

    async def args(self) -> Any:
        """What the task was called with; stored with `result_extended` only."""
        return (await self._meta()).args

    async def kwargs(self) -> Any:
        """What the task was called with by name; stored with `result_extended` only."""
        return (await self._meta()).kwargs

    async def worker(self) -> str | None:
        """The name of the worker that ran it; stored with `result_extended` only."""
        return (await self._meta()).worker

    async def retries(self) -> int | None:
        """How often it was retried; stored with `result_extended` only."""
        return (await self._meta()).retries

    async def queue(self) -> str | None:
        """The queue that it was sent to; stored with `result_extended` only."""
        return (await self._meta()).queue

    async def stamped_headers(self) -> list[str] | None:
        """Names of the task's stamps; stored where it has some."""
        found = (await self._meta()).extra.get("stamped_headers")
        return [str(name) for name in found] if isinstance(found, list | tuple) else None

    async def stamps(self) -> dict[str, Any]:
        """The task's stamps, by name."""
        extra = (await self._meta()).extra
        return {name: extra.get(name) for name in await self.stamped_headers() or ()}

    async def ready(self) -> bool:
        """Whether the task is done: it has succeeded, failed, or was revoked."""
        return await self.status() in states.FINAL

    async def successful(self) -> bool:
        """Whether the task has succeeded."""
        return await self.status() == states.SUCCESS

    async def failed(self) -> bool:
        """Whether the task has failed."""
        return await self.status() == states.FAILURE

    async def exists(self) -> bool:
        """Whether anything is stored for this task. PENDING may also mean that it waits, or was never sent."""
        return await self.app.results.exists(self.id)

    async def forget(self) -> None:
        """Delete the stored result, and those of its parents."""
        self._known = None
        await self.app.results.forget([self.id, *ids_before([self])])

    def as_list(self) -> list[str]:
        """The ids of this task and of those before it in a chain."""
        found = [self.id]
        for node in reversed(line_before(self)):
            if not isinstance(node, AsyncResult):
                return found + node.as_list()
            found.append(node.id)
        return found

    def _leaves(self) -> Iterable[AsyncResult[Any]]:
        return (self,)

    def _leaf_ids(self) -> Iterable[str]:
        return (self.id,)

    def _written_members(self) -> None:
        """A task has none."""

    def _following_others(self) -> Iterable[Any]:
        """Members with something before them."""
        return ()

    def _group_of_members(self, big: int) -> None:
        """No group's id stands for it."""
