"""Where a run takes place: its parent process says so in the environment, workers inherit it."""

from __future__ import annotations

import os

URL = os.environ.get("BENCHMARK_URL", "memory://")
"""The server or file that carries the tasks: new or emptied for every run."""

CONCURRENCY = int(os.environ.get("BENCHMARK_CONCURRENCY", "100"))
"""Tasks a worker may run at once."""

TALLY = os.environ.get("BENCHMARK_TALLY", "")
"""The file into which the worker writes what it counted, see `benchmarks.tally`."""

TASKS = int(os.environ.get("BENCHMARK_TASKS", "0"))
"""How many tasks are to be counted."""
