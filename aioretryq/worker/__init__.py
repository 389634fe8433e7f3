"""Running tasks."""

from typing import TYPE_CHECKING

from aioretryq.lazy import later

if TYPE_CHECKING:
    from aioretryq.worker.worker import Worker
else:
    # Not for a supervisor, which runs none itself.
    __getattr__ = later(__name__, {"Worker": "aioretryq.worker.worker:Worker"})

__all__ = ["Worker"]
