"""Worker processes that a scenario may kill, freeze and stop; and what they cost."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from programs import Program

if TYPE_CHECKING:
    from collections.abc import Mapping

TESTS = Path(__file__).parent.parent
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class WorkerProcess:
    """`aioretryq worker faults.application:queue` with options."""

    def __init__(self, *options: str, env: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "aioretryq", "worker", "faults.application:queue", *options]
        self._program = Program(command, env=env, cwd=TESTS)
        self.pid = self._program.process.pid
        self.frozen = False
        self.is_ready = False
        self.told_to_end = False
        self.killed_at: float | None = None

    def ready(self) -> None:
        self._program.wait_for("is ready", timeout=60)
        self.is_ready = True

    @property
    def lines(self) -> list[str]:
        """Of its log, so far."""
        return self._program.lines

    @property
    def output(self) -> str:
        return self._program.output

    def says(self, text: str, *, timeout: float = 30) -> None:
        self._program.wait_for(text, timeout=timeout)

    @property
    def alive(self) -> bool:
        return self._program.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._program.process.poll()

    def kill(self) -> None:
        """Gone when this returns."""
        self.told_to_end = True
        self._program.signal(signal.SIGKILL)
        self._program.wait()
        self.killed_at = time.monotonic()

    def freeze(self) -> None:
        """As a virtual machine that is being moved: it does not run, and does not know."""
        self._program.signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self._program.signal(signal.SIGCONT)
        self.frozen = False

    def term(self) -> None:
        self.told_to_end = True
        self._program.signal(signal.SIGTERM)

    def wait(self, timeout: float = 60) -> int:
        return self._program.wait(timeout)

    def close(self) -> None:
        self._program.stop()

    # -- what it costs

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self) -> float:
        """Resident, in MB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Fleet:
    """Workers of one scenario; all are gone when it is closed."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._stack = ExitStack()
        self.members: list[WorkerProcess] = []

    def launch(self, *options: str, **env: str) -> WorkerProcess:
        """One more worker, not ready yet."""
        worker = WorkerProcess(*options, env={**self._env, **env})
        self._stack.callback(worker.close)
        self.members.append(worker)
        return worker

    def start(self, count: int, *options: str, **env: str) -> list[WorkerProcess]:
        """That many, at the same time; returns when they are ready."""
        started = [self.launch(*options, **env) for _ in range(count)]
        for worker in started:
            worker.ready()
        return started

    @property
    def alive(self) -> list[WorkerProcess]:
        return [worker for worker in self.members if worker.alive]

    @property
    def output(self) -> str:
        return "\n".join(f"--- worker {worker.pid}\n{worker.output}" for worker in self.members)

    def close(self) -> None:
        for worker in self.alive:
            if worker.frozen:
                with suppress(ProcessLookupError):
                    worker.thaw()
        self._stack.close()
