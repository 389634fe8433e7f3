"""Waiting for many results, by their ids: what is there is fetched by the thousand, the rest is watched together."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from aioretryq import states
from aioretryq.backends.disabled import DisabledBackend
from aioretryq.backends.watches import CHUNK, WINDOW
from aioretryq.protocol.result import value_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.backends.watches import ManyWatch
    from aioretryq.protocol.result import ResultDocument

T = TypeVar("T")

PROMPT = 1000
"""So many tasks before the one that is waited for are listened to. More are only looked for from time to time: when
one of them fails, whatever follows it is told."""

Documents = list[tuple[int, "ResultDocument"]]
"""Each with the place of its id."""


def needs_results(app: TaskQueue) -> None:
    """Raises ConfigError, which says what to set, where no results are kept."""
    backend = app.results.backend
    if isinstance(backend, DisabledBackend):
        backend.listen()


def watch_many(app: TaskQueue, ids: Sequence[str], *, window: int = WINDOW, every: bool = False) -> ManyWatch:
    """See `ResultConsumer.watch_many`."""
    needs_results(app)
    return app.connections.consumer.watch_many(ids, window=window, every=every)


async def stored(app: TaskQueue, ids: Sequence[str]) -> AsyncGenerator[Documents, None]:
    """What is stored now, PENDING where there is nothing; in the order of the ids."""
    for start in range(0, len(ids), CHUNK):
        yield list(enumerate(await app.results.get_many(ids[start : start + CHUNK]), start))
        await asyncio.sleep(0)  # others have their turn, also where a backend answers without waiting


async def final(
    app: TaskQueue, ids: Sequence[str], *, window: int = WINDOW, every: bool = False
) -> AsyncGenerator[Documents, None]:
    """Documents of tasks that are done, as they are done; ends when all are. `every`: other states, too."""
    if not ids:
        return
    results = app.results
    with watch_many(app, ids, window=window, every=every) as watch:
        while found := await watch.next():
            yield [(place, results.read(task_id, document)) for place, task_id, document in found]


async def raise_failure(app: TaskQueue, ids: Sequence[str]) -> None:
    """The exception of the first of them that has failed by now."""
    async with aclosing(stored(app, ids)) as found:
        async for documents in found:
            _raise_first(documents)


async def unless_failed(app: TaskQueue, parents: Sequence[str], waiting: Coroutine[Any, Any, T]) -> T:
    """What is waited for; or the exception of the first of the parents that fails meanwhile."""
    if not parents:
        return await waiting
    main, guard = asyncio.ensure_future(waiting), asyncio.ensure_future(_failure(app, parents))
    try:
        await asyncio.wait([main, guard], return_when=asyncio.FIRST_COMPLETED)
        if guard.done():
            guard.result()
        return await main
    finally:
        await _cancel(main, guard)


async def _failure(app: TaskQueue, ids: Sequence[str]) -> None:
    async with aclosing(final(app, ids, window=WINDOW if len(ids) <= PROMPT else 0)) as found:
        async for documents in found:
            _raise_first(documents)


def _raise_first(documents: Documents) -> None:
    for _, document in documents:
        if document.status in states.PROPAGATED:
            raise value_of(document)


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    """Returns when none of them runs any more; what they raise is nobody's concern."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # else asyncio tells of it
    with anyio.CancelScope(shield=True):
        await asyncio.gather(*running, return_exceptions=True)
