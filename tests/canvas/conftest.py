"""A queue with a few small tasks, on every broker, and a worker."""

from __future__ import annotations

import asyncio

import pytest

from aioretryq import Ignore, Reject, TaskQueue, Worker
from queues import url

__all__ = ["url"]


def define(queue: TaskQueue, calls: list) -> None:
    """`calls` gets a line for every run of `note`, and of the errbacks."""
    define_values(queue, calls)
    define_bad_ends(queue)
    define_errbacks(queue, calls)


def define_values(queue: TaskQueue, calls: list) -> None:
    @queue.task(name="w.add")
    async def add(x, y=0):
        return x + y

    @queue.task(name="w.total")
    def total(numbers):
        return sum(numbers)

    @queue.task(name="w.echo")
    async def echo(*args):
        return args[0] if len(args) == 1 else list(args)

    @queue.task(name="w.note")
    async def note(*args):
        calls.append(("note", *args))
        return args[0] if args else None


def define_bad_ends(queue: TaskQueue) -> None:
    @queue.task(name="w.fail")
    async def fail(*args):
        raise ValueError("broken")

    @queue.task(name="w.flaky", bind=True, max_retries=3, default_retry_delay=0.01)
    async def flaky(self, value, failures=2):
        if self.request.retries < failures:
            raise self.retry(exc=OSError("not yet"))
        return value

    @queue.task(name="w.reject")
    async def reject(*args):
        raise Reject("no", requeue=False)

    @queue.task(name="w.ignore")
    async def ignore(*args):
        raise Ignore

    @queue.task(name="w.slow")
    async def slow(*args):
        await asyncio.sleep(60)


def define_errbacks(queue: TaskQueue, calls: list) -> None:
    @queue.task(name="w.told")
    async def told(request, exc, traceback):
        calls.append(("told", request.id, type(exc).__name__, str(exc)))

    @queue.task(name="w.told_in_thread", bind=True)
    def told_in_thread(self, request, exc, traceback, extra=None):
        calls.append(("told_in_thread", request.id, type(exc).__name__, extra))

    @queue.task(name="w.told_badly")
    async def told_badly(request, exc, traceback):
        calls.append(("told_badly", request.id))
        raise RuntimeError("this errback is broken itself")

    @queue.task(name="w.told_id")
    async def told_id(task_id):
        calls.append(("told_id", task_id))


@pytest.fixture
def calls():
    return []


@pytest.fixture
async def queue(url, calls):
    async with TaskQueue(url, result_expires=600.0) as queue:
        define(queue, calls)
        yield queue


@pytest.fixture
async def worker(queue):
    async with Worker(queue).running() as worker:
        yield worker
