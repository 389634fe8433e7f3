"""Random workflows, run by the workers of Celery, by ours, and by both: they become what the oracle says."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from canvas.oracle import Run, Value, failure
from canvas.tree_apis import ByCelery, ByUs, written
from canvas.trees import END_IN_NOTHING, built, drawn
from celery.result import AsyncResult
from trees_fleets import PATIENCE, Fleet
from trees_known import AMBIGUOUS, OF_CELERY, OF_CELERYS_CLIENT, UNCOUNTED, Seen, alike

from aioretryq import TaskQueue
from redis_server import RedisServer

pytestmark = pytest.mark.timeout(300)  # half a minute, where nothing else is running

COUNT = 150
TREES = [*END_IN_NOTHING, *drawn(COUNT - len(END_IN_NOTHING))]
CLIENTS = {"celery": ByCelery(), "ours": ByUs()}


def composed(client: str, number: int) -> dict[str, Any]:
    return written(built(TREES[number], CLIENTS[client], f"{client}-{number}"))


def expected(client: str, tree: dict[str, Any]) -> tuple[Seen, Run]:
    run = Run(backwards=client == "celery")
    outcome = run.outcome(tree)
    return Seen(outcome, Counter(line.partition(".")[2] for line in run.log)), run


@functools.cache
def expectations(client: str) -> list[tuple[dict[str, Any], Seen, Run]]:
    """Of each tree, as that client composes it."""
    return [(tree := composed(client, number), *expected(client, tree)) for number in range(COUNT)]


@pytest.fixture(scope="module")
def fleets() -> Iterator[dict[str, Fleet]]:
    """All trees have been sent to each by both clients, and have ended."""
    with ExitStack() as stack:
        server = RedisServer()
        server.start()
        stack.callback(server.close)
        fleets = {
            "ours": Fleet(server.url_of(0), stack, ours=1, celery=0),
            "celery": Fleet(server.url_of(1), stack, ours=0, celery=1),
            "both": Fleet(server.url_of(2), stack, ours=1, celery=1),
        }
        for fleet in fleets.values():
            fleet.ready()
        for fleet in fleets.values():
            asyncio.run(fleet.send_by_us(TREES))
            fleet.send_by_celery(TREES)
        runs = sum(len(run.log) for client in CLIENTS for _, _, run in expectations(client))
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda fleet: fleet.wait(runs), fleets.values()))
        yield fleets


def seen(fleet: Fleet, client: str, number: int) -> Seen:
    return Seen(fleet.outcome(client, number), fleet.log(client, number))


def difference(client: str, number: int, found: Seen) -> str:
    _, should, _ = expectations(client)[number]
    missing, more = should.log - found.log, found.log - should.log
    return (
        f"{client} {number}: {TREES[number]}\n  expected {should.outcome}\n  found    {found.outcome}\n"
        f"  not run {dict(missing)}\n  run too often {dict(more)}"
    )


@pytest.mark.parametrize("client", CLIENTS)
def test_our_workers(fleets: dict[str, Fleet], client: str) -> None:
    wrong = []
    differs = OF_CELERYS_CLIENT if client == "celery" else (AMBIGUOUS,)
    for number, (tree, should, run) in enumerate(expectations(client)):
        found = seen(fleets["ours"], client, number)
        if not alike(should, found, [known for known in differs if known.of_kind(tree, run)]):
            wrong.append(difference(client, number, found))
    assert not wrong, "\n".join([f"{len(wrong)} of {COUNT}", *wrong])


@pytest.mark.parametrize("name", ["celery", "both"])
@pytest.mark.parametrize("client", CLIENTS)
def test_workers_of_celery(fleets: dict[str, Fleet], client: str, name: str) -> None:
    wrong = []
    for number, (tree, should, run) in enumerate(expectations(client)):
        found = seen(fleets[name], client, number)
        known = [each for each in OF_CELERY.values() if each.of_kind(tree, run)]
        if not alike(should, found, known):
            wrong.append(difference(client, number, found))
    assert not wrong, "\n".join([f"{len(wrong)} of {COUNT}", *wrong])


@pytest.mark.parametrize("name", OF_CELERY)
def test_what_is_known_is_so(fleets: dict[str, Fleet], name: str) -> None:
    """Some tree needs it: not otherwise than this is it what the oracle says."""
    for client in CLIENTS:
        for number, (tree, should, run) in enumerate(expectations(client)):
            others = [known for key, known in OF_CELERY.items() if key != name and known.of_kind(tree, run)]
            if not alike(should, seen(fleets["celery"], client, number), others):
                return
    raise AssertionError(f"no tree needs it any more: {OF_CELERY[name].reason}")


def test_both_clients_are_told_the_same(fleets: dict[str, Fleet]) -> None:
    """By `get` of the last result, which looks at what was before it as well. Which of several failures is raised,
    and what a group raises, is a matter of time."""
    fleet = fleets["ours"]
    results = {
        number: fleet.sent["celery"][number].result
        for number, (tree, _, run) in enumerate(expectations("celery"))
        if len(run.failures) < 2 and isinstance(fleet.sent["celery"][number].result, AsyncResult)
        if not UNCOUNTED.of_kind(tree, run)
    }
    theirs = {number: told_by_celery(result) for number, result in results.items()}
    ours = asyncio.run(told_by_us(fleet.url, {number: result.as_tuple() for number, result in results.items()}))
    assert ours == theirs


def told_by_celery(result: Any) -> Any:
    try:
        return Value(result.get(timeout=PATIENCE))
    except Exception as error:
        return failure(error)


async def told_by_us(url: str, results: dict[int, Any]) -> dict[int, Any]:
    async def told(queue: TaskQueue, result: Any) -> Any:
        try:
            return Value(await queue.result_from_tuple(result).get(timeout=PATIENCE))
        except Exception as error:
            return failure(error)

    async with TaskQueue(url) as queue:
        return {number: await told(queue, result) for number, result in results.items()}
