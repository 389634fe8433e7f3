"""What a worker says of itself, every few seconds."""

from __future__ import annotations

import math
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aioretryq.worker.jobs import Jobs


def software() -> dict[str, str]:
    """Who we are, as `worker-*` events and `inspect stats` tell it."""
    try:
        number = version("aioretryq")
    except PackageNotFoundError:  # run from a copy of the sources
        number = "unknown"
    return {"sw_ident": "aioretryq", "sw_ver": number, "sw_sys": platform.system()}


SOFTWARE = software()


def vital_signs(jobs: Jobs, freq: float) -> dict[str, Any]:
    """The fields of a `worker-*` event (celery/worker/heartbeat.py)."""
    return {
        "freq": freq,
        "active": sum(job.started for job in jobs.all()),
        "processed": sum(jobs.totals.values()),
        "loadavg": load_average(),
        **SOFTWARE,
    }


def load_average() -> list[float]:
    if not hasattr(os, "getloadavg"):  # Windows
        return [0.0, 0.0, 0.0]
    return [math.ceil(load * 100) / 100 for load in os.getloadavg()]
