"""Whether aioretryq does more for a task than it did: `make bench-check`.

What is counted hardly depends on the machine, its speed or its load: Python calls, commands and reads of the Redis
server, bytes on the wire. `baseline.json` holds what they were; `--rewrite` replaces it after a change one wants.
Calls differ between versions of Python, so each has its own; one without a baseline is only shown.
"""

from __future__ import annotations

import asyncio
import json
import logging
import platform
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import uvloop

from aioretryq import TaskQueue, Worker, chord
from benchmarks.server import database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from benchmarks.server import Database

BASELINE = Path(__file__).with_name("baseline.json")
TASKS = 2_000
WARM = 300
"""Tasks after whose start the counting begins, and before whose last ones it ends."""
SENT = 1_000
TRIPS = 100
RUNS = 3
"""Of a count's runs the least is taken: what disturbs them adds."""
PATIENCE = 60.0
TOLERANCE = 0.05
ROOM = 0.02
"""Beside the tolerance, a count may grow by that: for those that are close to nothing."""
LOOSE = {"reads": 0.25, "bytes": 0.1, "commands": 0.1}
"""Tolerances of what depends a little on how much comes at once."""

Counts = dict[str, float]


class Calls:
    """The Python calls of this thread since it was made, awaits that go on included."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            self.count += 1


@contextmanager
def counted(name: str, amount: int, counts: Counts, server: Database | None) -> Iterator[None]:
    """Add what happens in the block, for each of `amount`, to the counts."""
    counting = Counting(server)
    yield
    counting.stop(name, amount, counts)


class Counting:
    def __init__(self, server: Database | None) -> None:
        self._server = server
        self._before = {} if server is None else server.counters()
        self._calls = Calls()
        sys.setprofile(self._calls)

    def stop(self, name: str, amount: int, counts: Counts) -> None:
        sys.setprofile(None)
        counts[f"{name}: calls"] = self._calls.count / amount
        if self._server is not None:
            after = self._server.counters()
            for what in ("commands", "reads", "bytes"):
                counts[f"{name}: {what}"] = (after[what] - self._before[what]) / amount


def nothing() -> None: ...


def no_op_of(queue: TaskQueue, on_run: Callable[[], None]) -> Any:
    @queue.task(name="noop")
    async def no_op(number: int) -> int:
        on_run()
        return number

    return no_op


class Runs:
    """Counts from one task on to another one, so that a worker's start and its end do not count."""

    def __init__(self, name: str, counts: Counts, server: Database | None) -> None:
        self._name = name
        self._counts = counts
        self._server = server
        self._ran = 0
        self._counting: Counting | None = None
        self.done = asyncio.Event()

    def __call__(self) -> None:
        self._ran += 1
        if self._ran == WARM:
            self._counting = Counting(self._server)
        elif self._ran == TASKS - WARM and self._counting is not None:
            self._counting.stop(self._name, TASKS - 2 * WARM, self._counts)
        elif self._ran == TASKS:
            self.done.set()


async def drained(url: str, counts: Counts, server: Database | None) -> None:
    """A worker on a full queue."""
    name = url.partition(":")[0]
    runs = Runs(f"{name} worker, no-op", counts, server)
    async with TaskQueue(url) as queue:
        no_op = no_op_of(queue, runs)
        handles = [handle for _ in range(TASKS // SENT) for handle in await at_once(no_op)]
        async with asyncio.timeout(PATIENCE), Worker(queue).running():
            await runs.done.wait()
            await handles[-1].get()
        chosen = handles[:SENT]
        with counted(f"{name} client, get of what is there", SENT, counts, server):
            await asyncio.gather(*[handle.get() for handle in chosen])


async def counted_parts(url: str, counts: Counts, server: Database | None) -> None:
    """The same no-ops as parts of a chord."""
    runs = Runs(f"{url.partition(':')[0]} worker, part of a chord", counts, server)
    async with TaskQueue(url) as queue:
        no_op = no_op_of(queue, runs)
        total = queue.task(name="total")(len)
        result = await chord((no_op.s(number) for number in range(TASKS)), total.s()).delay()
        async with asyncio.timeout(PATIENCE), Worker(queue).running():
            assert await result.get() == TASKS


async def at_once(no_op: Any) -> list[Any]:
    return await asyncio.gather(*[no_op.delay(number) for number in range(SENT)])


async def sent(url: str, counts: Counts, server: Database | None) -> None:
    """The ways to send."""
    name = url.partition(":")[0]
    async with TaskQueue(url) as queue:
        no_op = no_op_of(queue, nothing)
        await no_op.delay(0)
        with counted(f"{name} client, delay", TRIPS, counts, server):
            for number in range(TRIPS):
                await no_op.delay(number)
        with counted(f"{name} client, delay at once", SENT, counts, server):
            await at_once(no_op)
        if hasattr(no_op, "delay_many"):
            with counted(f"{name} client, delay_many", SENT, counts, server):
                await no_op.delay_many((number,) for number in range(SENT))


async def round_trips(url: str, counts: Counts, server: Database | None) -> None:
    """One after the other, client and worker together in this process."""
    name = url.partition(":")[0]
    async with TaskQueue(url) as queue, TaskQueue(url) as other:
        no_op_of(other, nothing)
        no_op = no_op_of(queue, nothing)
        async with asyncio.timeout(PATIENCE), Worker(other).running():
            await (await no_op.delay(0)).get()
            with counted(f"{name}, round trip", TRIPS, counts, server):
                for number in range(TRIPS):
                    await (await no_op.delay(number)).get()


def measured(server: Database) -> Counts:
    """The least of some runs."""
    least: Counts = {}
    for _ in range(RUNS):
        counts: Counts = {}
        for url, at in (("memory://", None), (server.url, server)):
            for measure in (drained, counted_parts, sent, round_trips):
                if at is None and measure is round_trips:
                    continue  # two queues in memory are two queues
                server.empty()
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(measure(url, counts, at))
        least = {name: min(value, least.get(name, value)) for name, value in counts.items()}
    return {name: round(value, 3) for name, value in least.items()}


def grown(counts: Counts, baseline: Mapping[str, float]) -> list[str]:
    """What is more than it was, a line each; what the baseline does not know is not compared."""
    found = []
    for name, value in counts.items():
        tolerance = LOOSE.get(name.rpartition(" ")[2], TOLERANCE)
        was = baseline.get(name)
        if was is not None and value > was * (1 + tolerance) + ROOM:
            more = f"{value / was - 1:.0%}" if was else "all"
            found.append(f"{name} grew from {was:g} to {value:g} ({more} more, {tolerance:.0%} is tolerated)")
    return found


def lost(counts: Counts, baseline: Mapping[str, float]) -> list[str]:
    """What the baseline knows and nobody counts any more."""
    return [f"{name} is in the baseline, but is not measured" for name in baseline if name not in counts]


def version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


@click.command()
@click.option("--rewrite", is_flag=True, help="Make what is counted now the baseline of this version of Python.")
def main(rewrite: bool) -> None:
    """Count what aioretryq does for a task; exits with 1 if that is more than in baseline.json."""
    logging.disable(logging.CRITICAL)
    with database(None) as server:
        counts = measured(server)
    baselines: dict[str, Counts] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    baseline = baselines.get(version(), {})
    for name, value in counts.items():
        print(f"{name:48} {value:10.2f}   was {baseline.get(name, float('nan')):10.2f}")
    if rewrite:
        BASELINE.write_text(json.dumps({**baselines, version(): counts}, indent=1, sort_keys=True) + "\n")
        return
    if not baseline:
        print(f"no baseline for Python {version()}: nothing is compared")
    wrong = [*grown(counts, baseline), *lost(counts, baseline)]
    for line in wrong:
        print(f"WORSE: {line}")
    if better := grown(baseline, counts):
        print(f"better by more than the tolerance: {len(better)} of them; --rewrite keeps it so")
    if wrong:
        print("If that is wanted: python -m benchmarks.check --rewrite")
        sys.exit(1)


if __name__ == "__main__":
    main()
