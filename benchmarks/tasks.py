"""The tasks: the same work for everybody. Celery has no coroutines, it gets the same as plain functions."""

from __future__ import annotations

import asyncio
import time

from benchmarks import tally

IO_SECONDS = 0.05


async def no_op(number: int) -> int:
    tally.start()
    return tally.done(number)


async def io(number: int) -> int:
    tally.start()
    await asyncio.sleep(IO_SECONDS)
    return tally.done(number)


def plain_no_op(number: int) -> int:
    tally.start()
    return tally.done(number)


def plain_io(number: int) -> int:
    tally.start()
    time.sleep(IO_SECONDS)
    return tally.done(number)
