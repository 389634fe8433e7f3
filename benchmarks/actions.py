"""What a client process does when it is told to. Times are taken here, values are checked here."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.contenders.adapter import Adapter

WARM_UP = -1
"""The number of tasks that are not counted."""
CHUNK = 10_000


class Session:
    """An open adapter, and the handles of what it sent."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.handles: list[Any] = []


class WrongValue(Exception):
    """A result is not what the task returned."""


def check(values: Sequence[Any], expected: Sequence[Any]) -> None:
    for value, wanted in zip(values, expected, strict=True):
        if value != wanted:
            raise WrongValue(f"a result is {value!r:.50}, not {wanted!r:.50}")


async def seed(session: Session, task: str, count: int, first: int = 0, keep: bool = True) -> float:
    """Send `count` tasks by the quickest way there is; seconds."""
    began = time.perf_counter()
    for start in range(first, first + count, CHUNK):
        numbers = range(start, min(start + CHUNK, first + count))
        handles = await session.adapter.send_many(task, numbers)
        if keep:
            session.handles += handles
    return time.perf_counter() - began


async def warm(session: Session, timeout: float) -> float:
    """Send tasks until a worker answers; seconds. What a worker finds at its start it may run late, or drop."""
    began = time.perf_counter()
    while True:
        left = began + timeout - time.perf_counter()
        try:
            await session.adapter.wait(await session.adapter.send("no_op", WARM_UP), min(2.0, left))
        except Exception:
            if left <= 2:
                raise
        else:
            return time.perf_counter() - began


async def verify(session: Session, sample: int, timeout: float) -> int:
    """Fetch the results of some of the tasks, evenly chosen among all: they have to be there. How many were."""
    step = max(1, len(session.handles) // sample)
    numbers = range(0, len(session.handles), step)
    check(await session.adapter.collect([session.handles[each] for each in numbers], timeout), numbers)
    return len(numbers)


async def roundtrip(session: Session, count: int, seconds: float, patience: float) -> dict[str, Any]:
    """Send and wait, one after the other, until `count` are done or the time is over."""
    times: list[float] = []
    lost = 0
    until = time.perf_counter() + seconds
    while len(times) + lost < count and (len(times) < 2 or time.perf_counter() < until):
        began = time.perf_counter()
        try:
            value = await session.adapter.wait(await session.adapter.send("no_op", len(times) + lost), patience)
        except TimeoutError:
            lost += 1
            continue
        times.append(time.perf_counter() - began)
        check([value], [len(times) + lost - 1])
    return {"times": times, "lost": lost}


async def gather(session: Session, count: int, timeout: float) -> float:
    """Send many and wait for all; seconds."""
    began = time.perf_counter()
    handles = await session.adapter.send_many("no_op", range(count))
    values = await session.adapter.collect(handles, timeout)
    took = time.perf_counter() - began
    check(values, range(count))
    return took


async def one_by_one(session: Session, count: int, first: int) -> float:
    await session.adapter.send("no_op", WARM_UP)
    began = time.perf_counter()
    session.handles += [await session.adapter.send("no_op", first + number) for number in range(count)]
    return time.perf_counter() - began


async def at_once(session: Session, count: int, first: int) -> float:
    began = time.perf_counter()
    session.handles += await session.adapter.send_at_once("no_op", range(first, first + count))
    return time.perf_counter() - began


async def chord(session: Session, count: int, first: int, body: int) -> float:
    """Send a chord of `count` parts; seconds."""
    began = time.perf_counter()
    session.handles = [await session.adapter.send_chord(range(first, first + count), body)]
    return time.perf_counter() - began


async def verify_chord(session: Session, count: int, timeout: float) -> None:
    """Wait until its body has got them all."""
    check([await session.adapter.wait(session.handles[0], timeout)], [count])


async def payload(session: Session, count: int, size: int) -> float:
    """Send that many with a text of that size; seconds."""
    began = time.perf_counter()
    session.handles += await session.adapter.send_at_once("echo", range(count), "x" * size)
    return time.perf_counter() - began


async def verify_payload(session: Session, sample: int, size: int, timeout: float) -> int:
    chosen = session.handles[:: max(1, len(session.handles) // sample)]
    check(await session.adapter.collect(chosen, timeout), ["x" * size] * len(chosen))
    return len(chosen)


async def delayed(session: Session, count: int, delay: float, pace: float) -> list[float]:
    """Send at most `pace` a second, each due `delay` seconds later; when each is due, on the monotonic clock."""
    due: list[float] = []
    began = time.monotonic()
    for number in range(count):
        ahead = began + number / pace - time.monotonic()
        if ahead > 0.002:  # a sleep cannot be shorter on some loops; what is late is made up for
            await asyncio.sleep(ahead)
        due.append(time.monotonic() + delay)
        session.handles.append(await session.adapter.send("no_op", number, delay=delay))
    return due


async def await_all(session: Session, timeout: float) -> dict[str, float]:
    """Wait for everything that was sent, all at once; how many came, and when the last one did."""
    waiting = [asyncio.ensure_future(session.adapter.wait(handle, timeout)) for handle in session.handles]
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    done = sum(outcome == number for number, outcome in enumerate(outcomes))
    return {"done": done, "ended": time.monotonic()}


async def round_trips(session: Session, waiting: int, count: int, own: bool, timeout: float) -> dict[str, float]:
    """So many at once send a task and wait for its result, again and again, until `count` tasks are done. With
    `own`, each by a client of its own; then the one of this session is closed."""
    numbers, times = iter(range(count)), []
    adapters = [session.adapter.another() if own else session.adapter for _ in range(waiting)]
    if own:
        await session.adapter.close()
    for adapter in adapters if own else ():
        await adapter.open()
        await adapter.wait(await adapter.send("no_op", WARM_UP), timeout)

    async def again_and_again(adapter: Adapter) -> None:
        for number in numbers:
            sent = time.perf_counter()
            value = await adapter.wait(await adapter.send("no_op", number), timeout)
            times.append(time.perf_counter() - sent)
            check([value], [number])

    began = time.perf_counter()
    await asyncio.gather(*map(again_and_again, adapters))
    took = time.perf_counter() - began
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"rate": count / took, "p50": cuts[49] * 1e3, "p99": cuts[98] * 1e3}


ACTIONS: dict[str, Callable[..., Awaitable[Any]]] = {
    each.__name__: each
    for each in (
        seed, warm, verify, roundtrip, gather, one_by_one, at_once, payload, verify_payload, delayed, await_all,
        round_trips, chord, verify_chord,
    )
}  # fmt: skip
