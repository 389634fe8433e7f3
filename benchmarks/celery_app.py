"""No-op tasks of a Celery application a second: `celery worker` against `aioretryq worker --celery`, in one run.

    python -m benchmarks.celery_app redis://localhost:6379/9 [--tasks 4000] [--rounds 3]

The database is emptied. Queues are filled first, then each worker drains one; the first tenth is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
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
    "aioretryq --processes 2": [*OURS, "-c", "2", "--processes", "2"],
}


def drained_per_second(client: redis.Redis, command: list[str], task: Any, count: int) -> float:
    client.flushdb()
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(count):
            task.apply_async(producer=producer)
    worker = subprocess.Popen(command, env={**os.environ, "BENCH_REDIS": URL}, stdout=subprocess.DEVNULL)
    try:
        while left(client) > count * 0.9:
            time.sleep(0.01)
        begun, at_first = time.perf_counter(), left(client)
        while left(client):
            time.sleep(0.01)
        return at_first / (time.perf_counter() - begun)
    finally:
        worker.terminate()
        worker.wait()


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
        rates: dict[str, list[float]] = {name: [] for name in WORKERS}
        for _ in range(given.rounds):
            for name, command in WORKERS.items():
                rates[name].append(drained_per_second(client, command, task, given.tasks))
        base = statistics.median(rates["celery -P threads"])
        for name, found in rates.items():
            rate = statistics.median(found)
            print(f"{task.name.rpartition('.')[2]:8} {name:24} {rate:7.0f} tasks/s {rate / base:5.2f}")


if __name__ == "__main__":
    main()
