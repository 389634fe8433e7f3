"""Programs under test: started, waited for by what they print, and always stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from redis_server import environment

ROOT = Path(__file__).parent.parent


class Program:
    """A running program whose output (both streams) can be waited for."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path | None) -> None:
        self.process = subprocess.Popen(
            command,
            env={**environment(), "PYTHONUNBUFFERED": "1", **env},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grown:
                self.lines.append(line.rstrip("\n"))
                self._grown.notify_all()
        with self._grown:
            self._grown.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, *, count: int = 1, timeout: float = 30) -> None:
        """Until `text` was printed in that many lines; AssertionError with the output when it is not."""

        def seen() -> bool:
            return sum(text in line for line in self.lines) >= count

        with self._grown:
            self._grown.wait_for(lambda: seen() or not self._reader.is_alive(), timeout)
            if not seen():
                raise AssertionError(f"{text!r} was not printed {count} times:\n{self.output}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 40) -> int:
        """The exit code; the output is complete afterwards."""
        code = self.process.wait(timeout)
        self._reader.join(10)
        return code

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def running(*command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Iterator[Program]:
    """A program in a process group of its own, killed at the end if it is still there."""
    program = Program(command, env=env or {}, cwd=cwd)
    try:
        yield program
    finally:
        program.stop()


@contextmanager
def aioretryq_worker(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Program]:
    """`aioretryq worker ...`, once it is ready."""
    with running(sys.executable, "-m", "aioretryq", "worker", *arguments, env=env, cwd=cwd) as program:
        program.wait_for("is ready")
        yield program
