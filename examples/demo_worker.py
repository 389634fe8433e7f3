"""A worker in a process of its own, watched while it works: part of examples.demo."""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds for the worker to start, and to stop."""


class WorkerFailed(Exception):
    """The worker did not start, has died, or did not stop as it should."""


class WorkerProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process
        self._ready = asyncio.Event()
        self._output: deque[str] = deque(maxlen=40)
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        """Keep the last lines, to show should something go wrong. Ends when the worker does."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._output.append(line.decode(errors="replace").rstrip())
            if self._output[-1].endswith("is ready."):
                self._ready.set()

    async def wait_ready(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self.while_alive(self._ready.wait())
        except TimeoutError:
            raise self._failed(f"The worker was not ready within {PATIENCE:.0f} s") from None

    async def while_alive(self, work: Awaitable[T]) -> T:
        """What the work returns; WorkerFailed should the worker end before."""
        doing = asyncio.ensure_future(work)
        try:
            await asyncio.wait([doing, self._reading], return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise self._failed(f"The worker has ended, with exit code {await self._process.wait()}")
            return doing.result()
        finally:
            doing.cancel()

    async def stop(self) -> None:
        """Gracefully, as a service manager would: SIGTERM, then exit code 0."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            code = await asyncio.wait_for(self._process.wait(), PATIENCE)
        except TimeoutError:
            raise self._failed(f"The worker did not stop within {PATIENCE:.0f} s") from None
        if code != 0:
            raise self._failed(f"The worker has stopped with exit code {code}")

    async def end(self) -> None:
        """In whatever way, if it has not stopped."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading

    def _failed(self, what: str) -> WorkerFailed:
        return WorkerFailed("\n  | ".join([f"{what}. The last it said:", *self._output]))


@asynccontextmanager
async def running_worker(app: str, *options: str) -> AsyncIterator[WorkerProcess]:
    """`aioretryq worker APP ...`, once it is ready; stopped at the end of the block."""
    worker = WorkerProcess(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "aioretryq", "worker", app, *options),
            cwd=Path(__file__).parent.parent,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    )
    try:
        await worker.wait_ready()
        yield worker
        await worker.stop()
    finally:
        await worker.end()
