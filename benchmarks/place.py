"""Where a run takes place: the harness says so in the environment, clients and workers inherit it."""

from __future__ import annotations

import os

CONTENDER = os.environ.get("BENCHMARK_CONTENDER", "aioretryq")
"""Whose client or worker this process is: some modules serve several, such as huey on Redis and on SQLite."""

URL = os.environ.get("BENCHMARK_URL", "memory://")
"""The server or file that carries the tasks: new or emptied for every run."""

CONCURRENCY = int(os.environ.get("BENCHMARK_CONCURRENCY", "100"))
"""Tasks a worker process may run at once."""

PATIENT = bool(os.environ.get("BENCHMARK_PATIENT"))
"""Whether polling intervals stay as the contender has them by default: an idle worker is measured that way."""

PROOF = os.environ.get("BENCHMARK_PROOF", "")
"""The folder into which workers write what they ran, see `benchmarks.proof`."""

TASKS = int(os.environ.get("BENCHMARK_TASKS", "0"))
"""How many tasks there are: their numbers are 0 and up."""
