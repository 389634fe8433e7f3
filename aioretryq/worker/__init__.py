"""Running tasks."""

from aioretryq.worker.worker import Worker

__all__ = ["Worker"]
