"""The process of one run: `python -m benchmarks.run MEASUREMENT CONTENDER TASKS SECONDS REPORT`.

Every run has a process, so that no contender disturbs another, and whatever happens in it can be ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from benchmarks.contenders import load
from benchmarks.measurements import MEASUREMENTS
from benchmarks.measurements.model import Report, Setting

if TYPE_CHECKING:
    from collections.abc import Sequence


async def measure(measurement: str, contender: str, tasks: int, seconds: float) -> Report:
    loaded = load(contender)
    async with loaded.client() as client:
        return await MEASUREMENTS[measurement].measure(Setting(loaded, client, tasks, seconds))


def main(arguments: Sequence[str]) -> None:
    measurement, contender, tasks, seconds, path = arguments
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(measure(measurement, contender, int(tasks), float(seconds)))
        Path(path).write_text(json.dumps(report))
        # What a contender leaves behind, a thread that still waits for instance, must not keep the run from ending.
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
