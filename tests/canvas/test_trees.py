"""Random workflows: composed as Celery composes them, and run by our worker as the oracle says, which in turn says
what Celery's own eager execution does."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from typing import Any

import pytest
from canvas.oracle import Members, Run, Value, everything, failure
from canvas.tree_apis import ByCelery, ByUs, written
from canvas.tree_tasks import define
from canvas.trees import END_IN_NOTHING, Call, Chain, Chord, Group, Tree, built, drawn, trees
from celery import Celery
from celery.result import EagerResult, allow_join_result
from celery.result import GroupResult as CelerysGroup
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aioretryq import GroupResult, TaskQueue, Worker
from aioretryq.protocol.signature import read_signature
from aioretryq.workflows.handles import results_of
from aioretryq.workflows.sending import send_signature
from queues import memory_url, soon, until

DRAWN = drawn(200, seed=2)


def test_composed_as_celery_composes() -> None:
    for tree in DRAWN:
        theirs, ours = (written(built(tree, api, "x")) for api in (ByCelery(), ByUs()))
        assert ours == theirs, tree


@settings(max_examples=50)
@given(trees())
def test_read_and_written_again(tree: Tree) -> None:
    signature = built(tree, ByUs(), "x")
    assert type(signature).from_dict(written(signature)) == signature
    assert read_signature(written(signature)) == signature.node


def test_the_oracle_is_celerys_eager_execution() -> None:
    """Of trees that fail eager execution only tells that they do: it raises what one of the calls has raised."""
    log: list[str] = []
    app = Celery("eager", set_as_current=False, broker="memory://", backend="cache+memory://")
    app.conf.task_always_eager = True
    define(app.task, log.append)
    for tree in DRAWN:
        log.clear()
        signature = built(tree, ByCelery(app), "x")
        run = Run(eager=True)
        expected = run.outcome(written(signature))
        found = eager_outcome(signature)
        if run.failures and found != expected:
            assert found in run.failures, tree
        else:
            assert found == expected, tree
            assert run.failures or Counter(log) == Counter(run.log), tree


def eager_outcome(signature: Any) -> Any:
    try:
        with allow_join_result():
            return outcome_of_eager(signature.apply())
    except Exception as error:
        return failure(error)


def outcome_of_eager(result: EagerResult | CelerysGroup | None) -> Any:
    if isinstance(result, CelerysGroup):
        return Members(tuple(map(outcome_of_eager, result.results)))
    value = None if result is None else result.get(propagate=False)
    return None if result is None else failure(value) if isinstance(value, BaseException) else Value(value)


ADD, FAIL = Call("add", (1,)), Call("fail", error="ValueError")
ONCE_WRONG = [
    Chain((Chord((ADD,), Group((ADD, ADD))), Chain((ADD, ADD)))),  # the rest was run by each member of the body
    Chain((Chord((), Group(())), Chord((ADD,), ADD))),  # the rest was not run
    Chord((Chord((ADD,), Group(())), Chord((FAIL,), Chain((Group(()),)))), ADD),
    *END_IN_NOTHING,  # the body was never called: nothing returns of an empty group
    Chord((FAIL,), Chain((Chord((ADD,), Call("add", errbacks=1)), Chain((ADD, ADD))))),  # the errback was not called
    Chain((Group((FAIL, ADD)), Group((ADD, ADD)), Group((ADD, ADD)))),  # what fails is a chord
]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@settings(max_examples=8)
@given(found=st.lists(trees(), min_size=1, max_size=20))
@example(found=ONCE_WRONG)
def test_our_worker(tmp_path_factory: pytest.TempPathFactory, kind: str, found: list[Tree]) -> None:
    folder = tmp_path_factory.mktemp("trees")
    asyncio.run(check(memory_url() if kind == "memory" else f"sqlite:///{folder}/queue.sqlite3", found))


async def check(url: str, found: list[Tree]) -> None:
    """All at once, as they must not get into each other's way; each as it was composed, and as others would send it:
    a dictionary."""
    log: list[str] = []
    async with TaskQueue(url) as queue:
        define(task_of(queue), log.append)
        found = [*found, *found]
        signatures = [built(tree, ByUs(queue), f"{n}") for n, tree in enumerate(found)]
        composed, received = signatures[: len(found) // 2], signatures[len(found) // 2 :]
        async with Worker(queue, concurrency=20).running():
            results = [await signature for signature in composed]
            results += [await sent_as_received(queue, written(signature)) for signature in received]
            outcomes = [await outcome_of(result) for result in results]
            runs = [Run() for _ in found]
            expected = [run.outcome(written(signature)) for run, signature in zip(runs, signatures, strict=True)]
            for tree, run, should, outcome in zip(found, runs, expected, outcomes, strict=True):
                assert run.ambiguous or outcome == should, tree
            noted = everything(runs)
            await until(lambda: len(log) >= noted.total())
            assert Counter(log) == noted


async def sent_as_received(queue: TaskQueue, signature: dict[str, Any]) -> Any:
    handle = await send_signature(queue, signature)
    return None if handle is None else results_of(handle, queue)


def task_of(queue: TaskQueue) -> Any:
    """Plain functions on the loop: threads would take most of the time."""

    def task(**options: Any) -> Any:
        def decorate(function: Any) -> Any:
            async def called(*args: Any, **kwargs: Any) -> Any:
                return function(*args, **kwargs)

            called.__signature__ = inspect.signature(function)
            return queue.task(**options)(called)

        return decorate

    return task


async def outcome_of(result: Any) -> Any:
    if isinstance(result, GroupResult):
        return Members(tuple([await outcome_of(member) for member in result.results]))
    if result is None:
        return None
    value = await soon(result.get(propagate=False))
    return failure(value) if isinstance(value, BaseException) else Value(value)
