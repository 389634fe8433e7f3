"""The tasks: the same work for everybody. Those without coroutines get the same as plain functions."""

from __future__ import annotations

import asyncio
import time

from benchmarks import proof

IO_SECONDS = 0.05


async def no_op(number: int) -> int:
    proof.start(number)
    return proof.done(number)


async def io(number: int) -> int:
    proof.start(number)
    await asyncio.sleep(IO_SECONDS)
    return proof.done(number)


async def echo(number: int, text: str) -> str:
    proof.start(number)
    proof.done(number)
    return text


def plain_no_op(number: int) -> int:
    proof.start(number)
    return proof.done(number)


def plain_io(number: int) -> int:
    proof.start(number)
    time.sleep(IO_SECONDS)
    return proof.done(number)


async def total(values: list[int], number: int) -> int:
    """The body of a chord."""
    return plain_total(values, number)


def plain_total(values: list[int], number: int) -> int:
    proof.start(number)
    proof.done(number)
    return len(values)


def plain_echo(number: int, text: str) -> str:
    proof.start(number)
    proof.done(number)
    return text
