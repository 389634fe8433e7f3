"""No-op tasks of a Celery application a second: `celery worker` against `aioretryq worker --celery`, in one run.

    python -m benchmarks.celery_app redis://localhost:6379/9 [--tasks 4000] [--rounds 3]

The database is emptied. Queues are filled first, then each worker drains one with four threads or processes; the
first tenth is not counted. The CPU a task depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import redis
from celery import Celery

URL = os.environ.get("BENCH_REDIS", "redis://localhost:6379/9")
app = Celery("bench", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_prefetch_multiplier = 16


@app.task(name="bench.stored")
def stored() -> None:
    """Its result is stored."""


@app.task(name="bench.ignored", ignore_result=True)
def ignored() -> None:
    """Nothing is stored of it."""


THREADS = 4
APP = "benchmarks.celery_app"
CELERY = [sys.executable, "-m", "celery", "-A", APP, "worker", "-l", "WARNING", "-c", str(THREADS)]
OURS = [sys.executable, "-m", "aioretryq", "worker", "--celery", APP, "-l", "warning"]
WORKERS = {
    "celery -P threads": [*CELERY, "-P", "threads"],
    "celery -P prefork": [*CELERY, "-P", "prefork"],
    "aioretryq": [*OURS, "-c", str(THREADS)],
}


def drain(client: redis.Redis, command: list[str], task: Any, count: int) -> tuple[float, float]:
    """(tasks a second, milliseconds of CPU a task) of one worker, its processes together."""
    client.flushdb()
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(count):
            task.apply_async(producer=producer)
    worker = subprocess.Popen(command, env={**os.environ, "BENCH_REDIS": URL}, stdout=subprocess.DEVNULL)
    try:
        while left(client) > count * 0.9:
            time.sleep(0.01)
        begun, used, at_first = time.perf_counter(), cpu_seconds(worker.pid), left(client)
        while left(client):
            time.sleep(0.01)
        took, used = time.perf_counter() - begun, cpu_seconds(worker.pid) - used
        return at_first / took, used * 1000 / at_first
    finally:
        worker.terminate()
        worker.wait()


def cpu_seconds(pid: int) -> float:
    """Of a process and its children, so far (Linux)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = 0
    for each in (pid, *map(int, children)):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def left(client: redis.Redis) -> int:
    waiting: Any = client.llen("celery")
    held: Any = client.hlen("unacked")
    return int(waiting) + int(held)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.url != URL:  # the application reads it when it is imported
        os.environ["BENCH_REDIS"] = given.url
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.celery_app", *sys.argv[1:]])
    client = redis.Redis.from_url(URL)
    for task in (stored, ignored):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in WORKERS}
        for _ in range(given.rounds):
            for name, command in WORKERS.items():
                found[name].append(drain(client, command, task, given.tasks))
        medians = {
            name: [statistics.median(each) for each in zip(*runs, strict=True)] for name, runs in found.items()
        }
        base = medians["celery -P threads"]
        for name, (rate, cpu) in medians.items():
            shown = f"{rate:6.0f} tasks/s {rate / base[0]:5.2f}   {cpu:5.2f} ms CPU a task {cpu / base[1]:5.2f}"
            print(f"{task.name.rpartition('.')[2]:8} {name:18} {shown}")


if __name__ == "__main__":
    main()
