"""Many deadlines with few timers."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from aioretryq.deadlines import KEPT, Deadlines
from queues import soon, until


class Waiting:
    def __init__(self):
        self.failed = asyncio.Event()
        self.error = None

    def fail(self, error):
        self.error = error
        self.failed.set()


@pytest.fixture
async def deadlines():
    found = Deadlines()
    yield found
    found.close()


async def test_who_waits_too_long_fails(deadlines):
    several = [Waiting() for _ in range(1000)]
    for each in several:
        deadlines.watch(each, 0.02)
    later = Waiting()
    deadlines.watch(later, 60)
    assert len(deadlines) == 2
    await soon(asyncio.gather(*(each.failed.wait() for each in several)))
    assert {type(each.error) for each in several} == {TimeoutError}
    assert later.error is None
    await until(lambda: len(deadlines) == 1)


async def test_who_was_dropped_does_not_and_is_not_kept(deadlines):
    one, other = Waiting(), Waiting()
    limits = [deadlines.watch(each, 0.05) for each in (one, other)]
    deadlines.drop(one, limits[0])
    deadlines.drop(one, limits[0])
    await soon(other.failed.wait())
    assert one.error is None
    forgotten = weakref.ref(one)
    del one
    gc.collect()
    assert forgotten() is None
    deadlines.drop(other, limits[1])


async def test_each_has_its_own_moment(deadlines):
    first = Waiting()
    deadlines.watch(first, 0.05)
    await asyncio.sleep(0.03)
    second = Waiting()
    deadlines.watch(second, 0.05)
    await soon(first.failed.wait())
    assert second.error is None
    await soon(second.failed.wait())


async def test_odd_limits_share_timers_and_idle_ones_go(deadlines):
    waiting = [Waiting() for _ in range(3000)]
    limits = [deadlines.watch(each, 100 + number / 1000) for number, each in enumerate(waiting)]
    assert len(deadlines) <= 31
    for each, limit in zip(waiting, limits, strict=True):
        deadlines.drop(each, limit)
    assert len(deadlines) <= KEPT + 1
