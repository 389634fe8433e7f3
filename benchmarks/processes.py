"""Processes of a run: started in a group of their own, watched through /proc, ended whatever happens."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STOPPING = 3.0
"""Seconds to stop after TERM."""


class RunFailed(Exception):
    """A run has no figure; the text is the reason."""


class Program:
    """A started program with its children."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path, *, talks: bool = False) -> None:
        self._log = log
        self.started = time.monotonic()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else output,
                stderr=output,
                env=env,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise RunFailed if it is no longer there."""
        if self.process.poll() is not None:
            raise RunFailed(f"a process exited with {self.process.returncode}: {last_words(self._log)}")

    def stop(self) -> None:
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOPPING)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def pids(self) -> list[int]:
        """It and its descendants."""
        found = [self.process.pid]
        for pid in found:
            with suppress(OSError):
                for thread in os.listdir(f"/proc/{pid}/task"):
                    found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
        return found


class Client(Program):
    """The program `benchmarks.client`: one JSON line each way."""

    def ask(self, do: str, timeout: float, /, **arguments: Any) -> Any:
        """What it answers; RunFailed if that is an error, or takes too long."""
        self.tell(do, **arguments)
        return self.answer(do, timeout)

    def tell(self, do: str, /, **arguments: Any) -> None:
        pipe: IO[bytes] | None = self.process.stdin
        assert pipe is not None
        try:
            pipe.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            pipe.flush()
        except OSError as error:
            raise RunFailed(f"the client is gone: {last_words(self._log)}") from error

    def answer(self, do: str, timeout: float) -> Any:
        answers: IO[bytes] | None = self.process.stdout
        assert answers is not None
        if not select.select([answers], [], [], timeout)[0]:
            raise RunFailed(f"{do} was not done after {timeout:.0f} s")
        line = answers.readline()
        if not line:
            raise RunFailed(f"the client is gone: {last_words(self._log)}")
        answer = json.loads(line)
        if "failed" in answer:
            raise RunFailed(f"{do}: {answer['failed']}")
        return answer["done"]


def last_words(log: Path) -> str:
    """The last line that was written: of a traceback, that names the error."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:150] if lines else "it said nothing"


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes so far. Ticks of 10 ms: fit for long runs."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def scheduled_seconds(pids: Sequence[int]) -> float:
    """The same to the nanosecond, of the threads that there are now: fit for idle processes."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return total / 1e9


def resident(pids: Sequence[int], field: str = "VmRSS") -> float:
    """Megabytes in memory, all together. VmHWM: at most so far. Pages that processes share count in each."""
    kilobytes = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(f"{field}:"):
                    kilobytes += int(line.split()[1])
    return kilobytes / 1024
