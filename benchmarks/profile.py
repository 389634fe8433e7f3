"""Where a worker's microseconds go: `python -m benchmarks.profile`, with py-spy on the path.

A worker drains no-ops from a private Redis, py-spy looks at its stack a few hundred times a second, and each look is
counted for the innermost of the stages below that is on it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.server import database

if TYPE_CHECKING:
    from collections.abc import Iterable

STAGES = {
    "decode the message": ("TaskQueue.decode",),
    "make the result document": ("Attempts._settle",),
    "begin, call the body, judge": ("Attempts._run", "run_body"),
    "look whether it is to run, make its request": ("Executor._process", "Executor._run_task", "Executor._attempted"),
    "acknowledge and store, by batches": ("GroupCommit", "Settler", "Conclusions"),
    "claim and start, by batches": ("Fetcher", "Jobs.start"),
    "read answers": ("Wire.buffer_updated",),
}
OTHER = "event loop, logging, the rest"
ASIDE = ("leases.py", "_bootstrap", "_find_and_load", "Task.delay", "sending", "publishing")
"""Frames of what is not the worker's path: another thread, imports, and the sender that lives in the same process."""

DRAIN = """
import asyncio, uvloop
from aioretryq import TaskQueue, Worker

queue, done = TaskQueue({url!r}), asyncio.Event()

@queue.task(name="no_op")
async def no_op(number):
    if number == {tasks}:
        done.set()
    return number

async def main():
    async with queue:
        for _ in range({rounds}):
            done.clear()
            await no_op.delay_many((number,) for number in range(1, {tasks} + 1))
            async with Worker(queue, concurrency=100).running():
                await done.wait()

uvloop.run(main())
"""


@click.command()
@click.option("--tasks", type=click.IntRange(1), default=20_000, show_default=True, help="Tasks of one round.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
def main(tasks: int, rounds: int) -> None:
    """Print the share of each stage of a task's way through a worker."""
    spy = shutil.which("py-spy")
    if spy is None:
        raise click.ClickException("py-spy is not here: pip install py-spy")
    with database(None) as server, tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        program = DRAIN.format(url=server.url, tasks=tasks, rounds=rounds)
        command = [spy, "record", "--rate", "300", "--format", "raw", "--output", str(raw), "--"]
        done = subprocess.run([*command, sys.executable, "-c", program], env=dict(os.environ), capture_output=True)
        if done.returncode:
            raise click.ClickException(done.stderr.decode()[-2000:])
        shares = counted(raw.read_text().splitlines())
    total = sum(shares.values())
    for stage in [*STAGES, OTHER]:
        click.echo(f"{shares[stage] / total:6.1%}  {stage}")


def counted(stacks: Iterable[str]) -> Counter[str]:
    """Looks by stage."""
    found: Counter[str] = Counter()
    for line in stacks:
        stack, _, looks = line.rpartition(" ")
        if "aioretryq" in stack and not any(frame in stack for frame in ASIDE):
            found[stage_of(stack.split(";"))] += int(looks)
    return found


def stage_of(stack: list[str]) -> str:
    for frame in reversed(stack):
        for stage, names in STAGES.items():
            if frame.startswith(names):
                return stage
    return OTHER


if __name__ == "__main__":
    main()
