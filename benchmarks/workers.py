"""One worker of a contender: a process, or a task in this one where the broker reaches no other."""

from __future__ import annotations

import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.contenders import Contender

STOPPING = 5.0
"""Seconds to stop after TERM."""


class WorkerExited(Exception):
    """The worker process ended by itself. What it said is in the log before this."""


@dataclass(frozen=True)
class RunningWorker:
    process: subprocess.Popen[bytes] | None

    def check(self) -> None:
        """Raise WorkerExited if it is no longer there."""
        if self.process is not None and self.process.poll() is not None:
            raise WorkerExited(f"the worker exited with {self.process.returncode}")


@asynccontextmanager
async def running_worker(contender: Contender, task: str) -> AsyncIterator[RunningWorker]:
    if contender.local_worker is not None:
        async with contender.local_worker():
            yield RunningWorker(None)
        return
    process = subprocess.Popen(contender.worker_command(task), stdin=subprocess.DEVNULL)
    try:
        yield RunningWorker(process)
    finally:
        process.terminate()
        try:
            process.wait(STOPPING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
