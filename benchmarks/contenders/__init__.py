"""The contenders: what to install for them, how their workers are started. Nothing of them is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

OURS = "aioretryq"
OURS_SQLITE = "aioretryq-sqlite"
HUEY_SQLITE = "huey-sqlite"
CEILING = "ceiling"

Commands = list[list[str]]
"""What to start: programs of the contender's environment, with arguments. Several where it has no `--processes`."""


@dataclass(frozen=True)
class Work:
    """What a worker is started for."""

    task: str = "no_op"
    processes: int = 1
    concurrency: int = 100
    delayed: bool = False
    """Whether tasks come with a delay: some need a scheduler beside the worker."""


@dataclass(frozen=True)
class Contender:
    name: str
    module: str
    """Of this package: exports its ADAPTER."""
    environment: str | None
    """Which of ENVIRONMENTS; None for the one the harness runs in."""
    commands: Callable[[Work], Commands]
    at_once: int = 100
    """Its worker's concurrency where tasks do not wait: whatever is best for it."""
    broker: str = "redis"
    cannot: tuple[tuple[str, str], ...] = ()
    """Workloads it has no way to do, with the reason."""

    def excuse(self, workload: str) -> str | None:
        return dict(self.cannot).get(workload)


ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "celery": ("celery[redis]==5.7.0", "redis==8.1.0", "hiredis==3.5.0"),
    "arq": ("arq==0.28.0", "redis==5.3.1", "hiredis==3.5.0", "uvloop==0.23.0"),
    "saq": ("saq==0.26.4", "redis==7.4.1", "hiredis==3.5.0", "uvloop==0.23.0", "typing_extensions==4.16.0"),
    "streaq": ("streaq==7.2.0", "coredis==6.9.0", "uvloop==0.23.0"),
    "taskiq": ("taskiq==0.13.0", "taskiq-redis==1.2.4", "redis==8.1.0", "hiredis==3.5.0", "uvloop==0.23.0"),
    "dramatiq": ("dramatiq==2.2.1", "redis==8.1.0", "hiredis==3.5.0", "gevent==26.9.0"),
    "huey": ("huey==3.5.4", "redis==8.1.0", "hiredis==3.5.0", "gevent==26.9.0"),
    "rq": ("rq==3.0.0", "redis==8.1.0", "hiredis==3.5.0"),
    "ceiling": ("hiredis==3.5.0", "uvloop==0.23.0"),
}

PACKAGE = "benchmarks.contenders"


def ours(work: Work) -> Commands:
    options = ["-c", str(work.concurrency), "--processes", str(work.processes), "-l", "warning", "--grace", "1"]
    return [["python", "-m", "aioretryq", "worker", f"{PACKAGE}.ours:queue", *options]]


def celery(pool: str) -> Callable[[Work], Commands]:
    def commands(work: Work) -> Commands:
        lean = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
        if pool == "prefork":
            return [celery_worker("prefork", work.processes, lean)]
        return [
            celery_worker("threads", work.concurrency, [*lean, "-n", f"{number}@%h"])
            for number in range(work.processes)
        ]

    return commands


def celery_worker(pool: str, at_once: int, more: list[str]) -> list[str]:
    return ["celery", "-A", f"{PACKAGE}.with_celery", "worker", "-P", pool, "-c", str(at_once), *more]


def arq(work: Work) -> Commands:
    settings, logs = f"{PACKAGE}.with_arq.WorkerSettings", f"{PACKAGE}.with_arq.QUIET"
    return [["arq", settings, "--custom-log-dict", logs]] * work.processes


def saq(work: Work) -> Commands:
    return [["saq", f"{PACKAGE}.with_saq.settings", "--workers", str(work.processes)]]


def streaq(work: Work) -> Commands:
    return [["streaq", "run", f"{PACKAGE}.with_streaq:worker", "--workers", str(work.processes)]]


def taskiq(work: Work) -> Commands:
    limits = ["--workers", str(work.processes), "--max-async-tasks", str(work.concurrency)]
    worker = ["taskiq", "worker", f"{PACKAGE}.with_taskiq:broker", *limits, "--log-level", "WARNING"]
    every = ["--update-interval", "1", "--log-level", "WARNING"]
    scheduler = ["taskiq", "scheduler", f"{PACKAGE}.with_taskiq:scheduler", *every]
    return [worker, scheduler] if work.delayed else [worker]


def dramatiq(program: str) -> Callable[[Work], Commands]:
    def commands(work: Work) -> Commands:
        amounts = ["--processes", str(work.processes), "--threads", str(work.concurrency)]
        return [[program, f"{PACKAGE}.with_dramatiq", *amounts]]

    return commands


def huey(kind: str) -> Callable[[Work], Commands]:
    def commands(work: Work) -> Commands:
        amounts = ["-k", kind, "-w", str(work.concurrency), "-q"]
        program = ["python", "-m", f"{PACKAGE}.huey_greenlets"] if kind == "greenlet" else ["huey_consumer"]
        return [[*program, f"{PACKAGE}.with_huey.huey", *amounts]] * work.processes

    return commands


def rq(work: Work) -> Commands:
    options = ["-w", "rq.worker.SimpleWorker", "-u", "{url}", "-q"]
    return [["rq", "worker", *options, *(["--with-scheduler"] if work.delayed else [])]] * work.processes


def ceiling(work: Work) -> Commands:
    return [["python", "-m", f"{PACKAGE}.ceiling"]] * work.processes


ALL = [
    Contender(OURS, "ours", None, ours),
    Contender(
        "celery-prefork",
        "with_celery",
        "celery",
        celery("prefork"),
        at_once=1,
        cannot=(("io", "runs as many tasks at once as it has processes"),),
    ),
    Contender("celery-threads", "with_celery", "celery", celery("threads"), at_once=4),
    Contender("arq", "with_arq", "arq", arq),
    Contender("saq", "with_saq", "saq", saq),
    Contender("streaq", "with_streaq", "streaq", streaq),
    Contender("taskiq", "with_taskiq", "taskiq", taskiq),
    Contender("dramatiq", "with_dramatiq", "dramatiq", dramatiq("dramatiq"), at_once=16),
    Contender("dramatiq-gevent", "with_dramatiq", "dramatiq", dramatiq("dramatiq-gevent"), at_once=32),
    Contender("huey", "with_huey", "huey", huey("thread"), at_once=4),
    Contender("huey-greenlet", "with_huey", "huey", huey("greenlet")),
    Contender("rq", "with_rq", "rq", rq, at_once=1, cannot=(("io", "runs one task at a time"),)),
    Contender(CEILING, "ceiling", "ceiling", ceiling),
    Contender(OURS_SQLITE, "ours", None, ours, broker="sqlite"),
    Contender(HUEY_SQLITE, "with_huey", "huey", huey("thread"), at_once=4, broker="sqlite"),
]
CONTENDERS = {each.name: each for each in ALL}
