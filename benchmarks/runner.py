"""Starts the runs, one after the other, and ends those that take too long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contenders import missing

if TYPE_CHECKING:
    from benchmarks.measurements.model import Report

ROOT = Path(__file__).parents[1]
GRACE = 10.0
"""Seconds after its bound until a run is killed: it should have ended by itself."""


@dataclass(frozen=True)
class Row:
    """A contender on a broker."""

    contender: str
    broker: str = "redis"

    @property
    def label(self) -> str:
        return f"{self.contender} {self.broker}" if self.contender == "aioretryq" else self.contender


@dataclass
class Outcome:
    """What the runs of a row came to: reports, or the reason why there are none."""

    reports: list[Report] = field(default_factory=list)
    failure: str | None = None


@dataclass(frozen=True)
class Runner:
    """Runs measurements. `redis_url` is a database of ours: it is emptied before every run."""

    redis_url: str
    concurrency: int
    seconds: float

    def run(self, measurement: str, row: Row, tasks: int, outcome: Outcome) -> None:
        """Add one run to the outcome. A row that has failed is not tried again."""
        if (package := missing(row.contender)) is not None:
            outcome.failure = f"not installed: {package}"
        if outcome.failure is None:
            with tempfile.TemporaryDirectory(prefix="aioretryq-bench-") as folder:
                self._run(measurement, row, tasks, outcome, Path(folder))

    def _run(self, measurement: str, row: Row, tasks: int, outcome: Outcome, folder: Path) -> None:
        report, log = folder / "report.json", folder / "log"
        what = [measurement, row.contender, str(tasks), str(self.seconds), str(report)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.run", *what],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env={**os.environ, **self._environment(row, tasks, folder)},
                start_new_session=True,
            )
            try:
                process.wait(self.seconds + GRACE)
            except subprocess.TimeoutExpired:
                outcome.failure = f"not done after {self.seconds:.0f} s"
            finally:
                with suppress(ProcessLookupError):  # its worker is in the same group
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if report.exists():
            outcome.reports.append(json.loads(report.read_text()))
        elif outcome.failure is None:
            outcome.failure = last_words(log.read_text(errors="replace"))

    def _environment(self, row: Row, tasks: int, folder: Path) -> dict[str, str]:
        urls = {"redis": self.redis_url, "sqlite": f"sqlite:///{folder}/queue.sqlite3", "memory": "memory://"}
        return {
            "BENCHMARK_URL": urls[row.broker],
            "BENCHMARK_CONCURRENCY": str(self.concurrency),
            "BENCHMARK_TASKS": str(tasks),
            "BENCHMARK_TALLY": str(folder / "tally.json"),
        }


def last_words(log: str) -> str:
    """The last line that was written: of a traceback, that names the error."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"failed: {lines[-1][:150]}" if lines else "failed without a word"
