"""One run: an emptied server, a client, workers, the proof of what ran, and what it all cost."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from benchmarks.environments import ROOT
from benchmarks.processes import Client, Program, RunFailed, cpu_seconds, resident
from benchmarks.proof import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.contenders import Contender, Work
    from benchmarks.server import Database

LOOK = 0.01
"""Seconds between looks at the proof. Its times were taken by the workers."""
SETTLING = 0.05
"""Seconds for what a worker still writes about the last tasks."""


@dataclass
class Workers:
    """All processes of a contender's worker."""

    programs: list[Program] = field(default_factory=list)

    def pids(self) -> list[int]:
        return [pid for program in self.programs for pid in program.pids()]

    def check(self) -> None:
        for program in self.programs:
            program.check()


@dataclass(frozen=True)
class Spent:
    """What workers and server used between two moments."""

    worker_cpu: float
    redis: dict[str, float]
    ran: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.ran / self.seconds

    def each(self) -> dict[str, float]:
        """For a task: microseconds of processor time, commands, round trips."""
        tasks = max(1, self.ran)
        figures = {"worker_us": self.worker_cpu / tasks * 1e6}
        if self.redis:
            figures["redis_us"] = self.redis["cpu"] / tasks * 1e6
            figures["commands"] = self.redis["commands"] / tasks
            figures["round_trips"] = self.redis["reads"] / tasks
            figures["wire_bytes"] = self.redis["bytes"] / tasks
        return figures


class Stage:
    """Where one run of a contender takes place. `folder` is new, the server empty."""

    def __init__(self, contender: Contender, bin: Path, server: Database, folder: Path, seconds: float) -> None:
        self.contender = contender
        self.server = server
        self.folder = folder
        self.seconds = seconds
        self._bin = bin
        self._ending = ExitStack()
        self._client: Client | None = None
        self._work: dict[str, str] = {}
        self.ledger = Ledger(folder, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def prepare(self, tasks: int, concurrency: int | None = None, *, patient: bool = False) -> None:
        """Say how many tasks are to be counted, before anything is started."""
        self.ledger = Ledger(self.folder, tasks)
        self.concurrency = concurrency or self.contender.at_once
        self._work = {
            "BENCHMARK_TASKS": str(tasks),
            "BENCHMARK_CONCURRENCY": str(self.concurrency),
            "BENCHMARK_PATIENT": "1" if patient else "",
        }

    @property
    def url(self) -> str:
        if self.contender.broker == "sqlite":
            return f"sqlite:///{self.folder}/queue.sqlite3"
        return self.server.url

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def environment(self) -> dict[str, str]:
        # Programs are compiled once, as where they are installed, and not at each start.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {
            **inherited,
            **self._work,
            "BENCHMARK_CONTENDER": self.contender.name,
            "BENCHMARK_URL": self.url,
            "BENCHMARK_PROOF": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{self._bin}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def command(self, words: list[str]) -> list[str]:
        program, *more = [word.format(url=self.url) if word == "{url}" else word for word in words]
        return [str(self._bin / program), *more]

    # -- the client

    def ask(self, do: str, **arguments: Any) -> Any:
        """Have the client do something; it is started when it is first asked."""
        if self._client is None:
            command = self.command(["python", "-m", "benchmarks.client"])
            self._client = Client(command, self.environment(), self.log, talks=True)
            self._ending.callback(self._client.stop)
        return self._client.ask(do, self.seconds, **arguments)

    def tell(self, do: str, /, **arguments: Any) -> None:
        """Have the client begin something; `answer` waits for it."""
        assert self._client is not None
        self._client.tell(do, **arguments)

    def answer(self, do: str) -> Any:
        assert self._client is not None
        return self._client.answer(do, self.seconds)

    def client_memory(self) -> float:
        """Megabytes, at most so far."""
        assert self._client is not None
        return resident(self._client.pids(), "VmHWM")

    def dismiss(self) -> None:
        """Have no client any more."""
        self._ending.close()
        self._client = None

    # -- the workers

    @contextmanager
    def working(self, work: Work) -> Iterator[Workers]:
        workers = Workers()
        try:
            for words in self.contender.commands(work):
                workers.programs.append(Program(self.command(words), self.environment(), self.log))
            yield workers
        finally:
            for program in workers.programs:
                program.stop()

    def until(self, workers: Workers, ran: int) -> None:
        """Return when so many tasks have run."""
        end = time.monotonic() + self.seconds
        while self.ledger.ran() < ran:
            workers.check()
            if time.monotonic() > end:
                raise RunFailed(f"{self.ledger.ran():,} of {ran:,} tasks had run after {self.seconds:.0f} s")
            time.sleep(LOOK)

    def drained(self, workers: Workers, tasks: int, *, after: int = 1) -> Spent:
        """What was spent on the tasks from `after` on, when `tasks` have run."""
        self.until(workers, after)
        pids = workers.pids()
        begun, ran, cpu, redis = time.monotonic(), self.ledger.ran(), cpu_seconds(pids), self.counters()
        self.until(workers, tasks)
        ended, all_ran = time.monotonic(), self.ledger.ran()
        time.sleep(SETTLING)
        used = {name: value - redis[name] for name, value in self.counters().items()}
        return Spent(cpu_seconds(workers.pids()) - cpu, used, all_ran - ran, ended - begun)

    def rate(self, tasks: int) -> float:
        """Tasks a second from the first one's start to the last one's end, on the workers' clock."""
        return tasks / (self.ledger.ended() - self.ledger.began())

    def counters(self) -> dict[str, float]:
        return self.server.counters() if self.contender.broker == "redis" else {}

    def prove(self, upto: int | None = None) -> None:
        """Raise RunFailed unless each task ran exactly once; with `upto`, at least so many."""
        reason = self.ledger.verdict(upto)
        if reason is not None:
            raise RunFailed(reason)
