"""Group commit: what many callers hand in while one batch is on its way goes out as the next batch.

Batches form under load and cost no waiting at rest: there is no timer. A command, a script, a turn of the event loop
cost nearly the same for one item and for a hundred, so this is where most of our speed comes from.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aioretryq.errors import NotOpenError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")

LARGEST = 2**20
"""Bytes of a batch. It has to reach the server within one reply deadline, also over a slow link: one that does not is
repeated whole, for ever, and everything else waits behind it."""

CLOSED = "The queue was closed in the middle of this operation; open it again with `async with queue:`."


class Submission(Generic[T, R]):
    """An item that was handed in. `on_its_way` once its batch was given to `commit`."""

    __slots__ = ("answer", "committer", "interrupted", "item", "on_its_way")

    def __init__(self, item: T) -> None:
        self.item = item
        self.answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.on_its_way = False
        self.committer: asyncio.Task[Any] | None = None  # its submitter, if that commits it
        self.interrupted = False  # its submitter, by `fail`

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            if self.committer is not None and self.committer is not asyncio.current_task():
                self.interrupted = True
                self.committer.cancel()


class GroupCommit(Generic[T, R]):
    """Hands items to `commit` in batches. `run()` must be running in a task that somebody owns.

    `commit(items)` returns one answer for each item. When it raises, every submitter of the batch sees the
    error; when that error is not a matter of reaching the server, the items are committed one by one, so
    that a single bad one fails alone.

    Who finds nobody committing does it himself, with `submit`: one item after the other costs two turns of the event
    loop less than if they passed through the task of `run`.

    A batch has at most `limit` items, and where `size` tells the bytes of one, at most `largest` bytes; an item
    that is larger goes alone.
    """

    def __init__(
        self,
        commit: Callable[[list[T]], Awaitable[Sequence[R]]],
        *,
        limit: int = 500,
        size: Callable[[T], int] | None = None,
        largest: int = LARGEST,
    ) -> None:
        self._commit = commit
        self._limit = limit
        self._size = size
        self._largest = largest
        self._pending: deque[Submission[T, R]] = deque()
        self._wake = asyncio.Event()
        self._busy = False  # somebody commits, and will look again whether something is pending
        self._alone: Submission[T, R] | None = None  # what its submitter commits
        self._closed = False

    async def submit(self, item: T) -> R:
        """Returns when the batch with the item is committed.

        Cancelled before its batch is on its way, an item is dropped; afterwards it may be committed.
        NotOpenError once `run()` has ended: nobody would take the item.
        """
        return await self.answered(self.hand_in(item, at_once=True))

    def hand_in(self, item: T, *, at_once: bool = False) -> Submission[T, R]:
        """As `submit`, for those who have to know how far the item got when it fails.

        `at_once`: the caller asks for the answer by `answered` before anything else can happen.
        """
        if self._closed:
            raise NotOpenError(CLOSED)
        entry: Submission[T, R] = Submission(item)
        if at_once and not self._busy and not self._pending:
            self._busy, self._alone = True, entry
            return entry
        self._pending.append(entry)
        if not self._busy:
            self._wake.set()
        return entry

    def answered(self, entry: Submission[T, R]) -> Awaitable[R]:
        """The answer of what was handed in. To be awaited at once."""
        return self._commit_alone(entry) if entry is self._alone and entry.committer is None else entry.answer

    async def _commit_alone(self, entry: Submission[T, R]) -> R:
        task = entry.committer = asyncio.current_task()
        assert task is not None
        cancelled = task.cancelling()
        try:
            await self._commit_one(entry)
        except asyncio.CancelledError:
            # By whoever made it fail meanwhile (too late, closed), or really.
            if task.cancelling() > cancelled + entry.interrupted:
                if not entry.answer.cancel():
                    entry.answer.exception()  # or it would complain that nobody has asked for it
                raise
            # Or by nobody: what `commit` waited for was torn down below it.
            entry.fail(NotOpenError(CLOSED))
        finally:
            if entry.interrupted:
                task.uncancel()
            entry.committer = None
            self._busy, self._alone = False, None
            if self._pending:
                self._wake.set()
        return entry.answer.result()

    async def run(self) -> None:
        """Commits until cancelled; whatever is still pending then fails with NotOpenError."""
        batch: list[Submission[T, R]] = []
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._busy = True
                while self._pending:
                    batch = self._next_batch()
                    await self._commit_batch(batch)
                    batch = []
                self._busy = False
        finally:
            self._closed = True
            alone = [] if self._alone is None else [self._alone]
            _fail([*batch, *self._pending, *alone], NotOpenError(CLOSED))
            self._pending.clear()

    def _next_batch(self) -> list[Submission[T, R]]:
        batch: list[Submission[T, R]] = []
        left = self._largest
        while self._pending and len(batch) < self._limit:
            entry = self._pending[0]
            if not entry.answer.done():
                left -= 0 if self._size is None else self._size(entry.item)
                if left < 0 and batch:
                    break
                batch.append(entry)
            self._pending.popleft()
        return batch

    async def _commit_batch(self, batch: list[Submission[T, R]]) -> None:
        if len(batch) < 2:
            for entry in batch:
                await self._commit_one(entry)
            return
        for entry in batch:
            entry.on_its_way = True
        try:
            answers = await self._commit([entry.item for entry in batch])
        except UnavailableError as error:
            _fail(batch, error)
        except Exception:  # one may be to blame, who then fails alone
            for entry in batch:
                await self._commit_one(entry)
        else:
            for entry, answer in zip(batch, answers, strict=True):
                if not entry.answer.done():
                    entry.answer.set_result(answer)

    async def _commit_one(self, entry: Submission[T, R]) -> None:
        entry.on_its_way = True
        try:
            (answer,) = await self._commit([entry.item])
        except Exception as error:  # whatever it is, it must not end the loop that everybody else depends on
            entry.fail(error)
        else:
            if not entry.answer.done():
                entry.answer.set_result(answer)


def _fail(batch: list[Submission[T, R]], error: BaseException) -> None:
    for entry in batch:
        entry.fail(error)
