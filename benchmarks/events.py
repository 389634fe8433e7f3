"""What events cost a worker: `python -m benchmarks.events`.

Processor time for each of 5,000 no-ops, in a process of its own for each run, on a private Redis server. `bare` has
the calls that tell of events replaced with nothing. Processor time and not tasks per second, because that hardly
depends on what else the machine does; the least of a mode's runs is the one that was disturbed least.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from typing import Any

import uvloop

from aioretryq import TaskQueue, Worker
from aioretryq.worker.events import Events
from benchmarks.server import database

MODES = ("bare", "off", "on", "watched")
TASKS = 5_000


def main(repeat: int = 8) -> None:
    used: dict[str, list[float]] = {mode: [] for mode in MODES}
    with database(None) as place:
        for _ in range(repeat):
            for mode in MODES:
                place.empty()
                command = [sys.executable, "-m", "benchmarks.events", mode, place.url]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                used[mode].append(float(done.stdout))
    least = min(used["off"])
    print("mode     least us/task   ratio   all runs")
    for mode, found in used.items():
        runs = " ".join(f"{each:.0f}" for each in sorted(found))
        print(f"{mode:8} {min(found):13.0f} {min(found) / least:7.2f}   {runs}")


async def drain(mode: str, url: str) -> float:
    """Microseconds of processor time for each task."""
    queue = TaskQueue(url, worker_send_task_events=mode in ("on", "watched"))
    left, done = TASKS, asyncio.Event()

    @queue.task(name="noop")
    async def noop() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    async with queue:
        for _ in range(0, TASKS, 500):
            await asyncio.gather(*[noop.delay() for _ in range(500)])
        began = time.process_time()
        async with Worker(queue).running():
            await done.wait()
            return (time.process_time() - began) / TASKS * 1e6


def nothing(*_: Any) -> None: ...


if __name__ == "__main__":
    if len(sys.argv) == 3:
        logging.disable(logging.CRITICAL)
        if sys.argv[1] == "bare":
            for told in ("received", "started", "settled"):
                setattr(Events, told, nothing)
        watcher = None
        if sys.argv[1] == "watched":
            watching = [sys.executable, "-m", "aioretryq", "events", "--json", "--url", sys.argv[2]]
            watcher = subprocess.Popen(watching, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            assert watcher.stderr is not None
            watcher.stderr.readline()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(runner.run(drain(sys.argv[1], sys.argv[2])))
        if watcher is not None:
            watcher.terminate()
            watcher.wait()
    else:
        main()
