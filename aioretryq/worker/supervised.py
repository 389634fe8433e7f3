"""A worker among several: what the signals of a supervisor mean to it."""

from __future__ import annotations

from aioretryq.worker.worker import Worker


class SupervisedWorker(Worker):
    """A second request to stop does not end the grace, only `now` does: those who stop a unit of systemd signal every
    process of it, and then the supervisor tells its own, in whatever order that arrives."""

    def stop(self, *, now: bool = False) -> None:
        if now or not self.stopping:
            super().stop(now=now)
