"""Results as their callers hold them: everything that needs I/O is awaited."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

import anyio

from aioretryq import states
from aioretryq.calling import is_text
from aioretryq.errors import IncompleteStream, ResultTimeout
from aioretryq.protocol.result import ResultDocument, value_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Generator, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.context import Request
    from aioretryq.group_result import GroupResult

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Update:
    """One state of a task, as `updates()` yields it. `result` is a value, progress data, or an exception."""

    status: str
    result: Any


class AsyncResult(Generic[R]):
    """The result of a task that was sent. Costs nothing until it is asked for something."""

    def __init__(self, task_id: str, app: TaskQueue, *, parent: AsyncResult[Any] | GroupResult | None = None) -> None:
        if not isinstance(task_id, str):
            raise TypeError(f"The id of a task is a text, not {task_id!r}; use str(...).")
        if not is_text(task_id):
            raise ValueError(f"The id of a task is a text that can be sent to a server, not {task_id!r}.")
        self.id = task_id
        self.app = app
        self.parent = parent
        self.ignored = False
        self.just_sent = False  # until somebody waits

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
        parents = ancestors(self) if self.parent is not None and propagate and follow_parents else ()
        if timeout is not None and timeout <= 0:
            await raise_failure(parents)
            if (document := await self._meta()).status not in states.FINAL:
                raise self._too_late(timeout)
        elif parents:
            document = await self._final_after(parents, timeout)
        else:
            document = await self._final(timeout)
        value: R | BaseException = self._value(document, propagate)
        return value

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

    async def _final(self, timeout: float | None = None) -> ResultDocument:
        results = self.app.results
        if (known := results.cached(self.id)) is not None:
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

    async def _final_after(self, parents: Sequence[AsyncResult[Any]], timeout: float | None) -> ResultDocument:
        with anyio.move_on_after(timeout):
            await raise_failure(parents)
            return await unless_failed(parents, self._final())
        raise self._too_late(timeout)

    def _too_late(self, timeout: float | None) -> ResultTimeout:
        return ResultTimeout(f"Task {self.id} was not done within {timeout} s; it goes on all the same.")

    def _value(self, document: ResultDocument, propagate: bool) -> Any:
        value = value_of(document)
        if propagate and document.status in states.PROPAGATED:
            raise value
        return value

    async def _meta(self) -> ResultDocument:
        return await self.app.results.get_task_meta(self.id)

    async def status(self) -> str:
        """PENDING, STARTED, RETRY, SUCCESS, FAILURE, REVOKED, or a state of the task's own."""
        return (await self._meta()).status

    async def state(self) -> str:
        return await self.status()

    async def result(self) -> Any:
        """The value, the exception, or the data of a state of the task's own; None while pending."""
        return value_of(await self._meta())

    async def info(self) -> Any:
        return await self.result()

    async def traceback(self) -> str | None:
        return (await self._meta()).traceback

    async def children(self) -> list[AsyncResult[Any] | GroupResult]:
        """Results of the tasks and groups that this one has sent."""
        found = (await self._meta()).children or []
        results = [self.app.result_from_tuple(entry) for entry in found]
        # A retried Celery task lists itself: following that would never end.
        return [each for each in results if each != self]

    async def iterdeps(
        self, intermediate: bool = False
    ) -> AsyncIterator[tuple[AsyncResult[Any] | GroupResult | None, AsyncResult[Any] | GroupResult]]:
        """(Who has sent it, result) for this one and all that came of it, each once.

        Raises IncompleteStream at a task that is not done; with `intermediate=True` it is taken for childless.
        """
        waiting: deque[tuple[AsyncResult[Any] | GroupResult | None, AsyncResult[Any] | GroupResult]]
        waiting, seen = deque([(None, self)]), {self.id}
        while waiting:
            sender, node = waiting.popleft()
            yield sender, node
            if await node.ready():
                new = [child for child in await node.children() if child.id not in seen]
                seen.update(child.id for child in new)
                waiting.extend((node, child) for child in new)
            elif not intermediate:
                raise IncompleteStream(f"{node.id} is not done: what it will send is not known yet.")

    async def collect(
        self, intermediate: bool = False, **options: Any
    ) -> AsyncIterator[tuple[AsyncResult[Any] | GroupResult, Any]]:
        """(Result, value) for this task and all that came of it, waiting for each; options are those of `get`."""
        async for _, node in self.iterdeps(intermediate):
            yield node, await node.get(**options)

    async def get_leaf(self) -> Any:
        """The value of the last task that came of this one."""
        values = [value async for _, value in self.collect()]
        return values[-1]

    async def date_done(self) -> str | None:
        """When the final state was reached: ISO 8601 text."""
        return (await self._meta()).date_done

    async def name(self) -> str | None:
        """Of the task; this and the next ones are stored with `result_extended` only."""
        return (await self._meta()).name

    async def args(self) -> Any:
        return (await self._meta()).args

    async def kwargs(self) -> Any:
        return (await self._meta()).kwargs

    async def worker(self) -> str | None:
        return (await self._meta()).worker

    async def retries(self) -> int | None:
        return (await self._meta()).retries

    async def queue(self) -> str | None:
        return (await self._meta()).queue

    async def ready(self) -> bool:
        return await self.status() in states.FINAL

    async def successful(self) -> bool:
        return await self.status() == states.SUCCESS

    async def failed(self) -> bool:
        return await self.status() == states.FAILURE

    async def exists(self) -> bool:
        """Whether anything is stored for this task. PENDING may also mean that it waits, or was never sent."""
        return await self.app.results.exists(self.id)

    async def forget(self) -> None:
        """Delete the stored result, and those of its parents."""
        await self.app.results.forget([self.id, *(result.id for result in ancestors(self))])

    async def revoke(self, *, terminate: bool = False) -> None:
        """The task is not to run: dropped where it waits, and its result is REVOKED from now on.

        A task that is running already goes on; `terminate=True` cancels it (within about a second). A result
        that is final stays as it is.
        """
        await self.app.revoke(self.id, terminate=terminate)

    def as_tuple(self) -> tuple[tuple[str, Any], None]:
        """What Celery calls this result where it is stored; `TaskQueue.result_from_tuple` reads it."""
        return (self.id, self.parent.as_tuple() if self.parent else None), None

    def as_list(self) -> list[str]:
        """The ids of this task and of those before it in a chain."""
        return [self.id, *(self.parent.as_list() if self.parent else ())]


def ancestors(result: AsyncResult[Any] | GroupResult) -> list[AsyncResult[Any]]:
    """The tasks before it, the first one first."""
    found: list[AsyncResult[Any]] = []
    node = result.parent
    while node is not None:
        found[:0] = leaves(node)
        node = node.parent
    return found


def leaves(result: AsyncResult[Any] | GroupResult) -> list[AsyncResult[Any]]:
    """The tasks of a group, and of the groups in it; or the one that it is."""
    if isinstance(result, AsyncResult):
        return [result]
    return [leaf for member in result.results for leaf in leaves(member)]


async def raise_failure(results: Sequence[AsyncResult[Any]]) -> None:
    """The exception of the first of them that has failed by now."""
    for result in results:
        if (document := await result._meta()).status in states.PROPAGATED:
            raise value_of(document)


async def unless_failed(parents: Sequence[AsyncResult[Any]], waiting: Coroutine[Any, Any, T]) -> T:
    """What is waited for; or the exception of the first of the parents that fails meanwhile."""
    main = asyncio.ensure_future(waiting)
    others = [asyncio.ensure_future(parent.get(follow_parents=False)) for parent in parents]
    try:
        pending: set[asyncio.Future[Any]] = {main, *others}
        while not main.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for each in done - {main}:
                each.result()
        return main.result()
    finally:
        await cancel([main, *others])


async def cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Returns when none of them runs any more; what they raise is nobody's concern."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # else asyncio tells of it
    with anyio.CancelScope(shield=True):
        await asyncio.gather(*running, return_exceptions=True)


class EagerResult(AsyncResult[R]):
    """The result of a task that has run in place: always ready, nothing is stored."""

    def __init__(self, task_id: str | None, status: str, value: Any, traceback: str | None, request: Request) -> None:
        self.id = task_id or ""
        self.parent = None
        self.ignored = False
        self.request = request
        self._document = ResultDocument(
            task_id=self.id,
            status=status,
            result=None,
            traceback=traceback,
            name=request.task,
            args=request.args,
            kwargs=request.kwargs,
            retries=request.retries,
        )
        self._eager_value = value

    def __repr__(self) -> str:
        return f"<EagerResult {self.id} {self._document.status}>"

    async def get(self, timeout: float | None = None, *, propagate: bool = True, follow_parents: bool = True) -> Any:
        if propagate and self._document.status in states.PROPAGATED:
            raise self._eager_value
        return self._eager_value

    async def updates(self) -> AsyncIterator[Update]:
        yield Update(self._document.status, self._eager_value)

    async def _meta(self) -> ResultDocument:
        return self._document

    async def result(self) -> Any:
        return self._eager_value

    async def finished(self) -> None:
        """It is."""

    async def exists(self) -> bool:
        return False

    async def forget(self) -> None:
        """Nothing is stored."""

    async def revoke(self, *, terminate: bool = False) -> None:
        """It has run already."""
