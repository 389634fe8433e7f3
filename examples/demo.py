"""The main job: 200 calls of an HTTP server that fails half of the time, until every one of them is through.

python -m examples.demo [--tasks N] [--url BROKER]

A worker process, a broker that is a file, retries with backoff and jitter, results awaited as they come.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from aioretryq import AioretryqError
from examples.demo_server import FlakyServer
from examples.demo_tasks import place_order, queue

PATIENCE = 60.0
"""Seconds for the worker to start, for each result, and for the worker to stop."""

console = Console()


class DemoFailed(Exception):
    """Something that must not happen has happened; the message says what."""


@dataclass
class Order:
    """What came of one task."""

    seconds: float
    attempts: int = 0
    error: str = ""


# -- the worker: a process of its own, as in production


class WorkerProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ready = asyncio.Event()
        self.output: list[str] = []

    async def read(self) -> None:
        """Keep what the worker prints, to show it should something go wrong. Ends when the worker does."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.output.append(line.decode(errors="replace").rstrip())
            if self.output[-1].endswith("is ready."):
                self.ready.set()

    def failed(self, what: str) -> DemoFailed:
        return DemoFailed("\n".join([f"{what} This is what it said last:", *self.output[-30:]]))


@contextlib.asynccontextmanager
async def worker_process(url: str) -> AsyncIterator[WorkerProcess]:
    """A worker that is ready; stopped gracefully at the end. DemoFailed if it does not start, or stop."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aioretryq", "worker", "examples.demo_tasks:queue", "-c", "50", "--url", url),
        cwd=Path(__file__).parent.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    worker = WorkerProcess(process)
    reading = asyncio.create_task(worker.read())
    try:
        await alongside(worker.ready.wait, reading, timeout=PATIENCE, otherwise=worker)
        yield worker
        process.terminate()
        ...
    finally:
        ...
