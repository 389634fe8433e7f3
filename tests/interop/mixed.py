"""The tasks of the mixed soak, for both kinds: `celery -A mixed worker` and `aioretryq worker mixed:queue`."""

from __future__ import annotations

import asyncio
import os
import time

from celery import Celery

from aioretryq import TaskQueue

URL = os.environ.get("INTEROP_REDIS", "redis://localhost")
TRACE = os.environ.get("MIXED_TRACE", os.devnull)
VISIBILITY = 5
"""Seconds after which either kind puts back what the other has died with."""


def ran(task_id: str) -> None:
    # One short write at the end of a file is one piece, also with several writers.
    with open(TRACE, "a") as trace:
        trace.write(f"{task_id}\n")


app = Celery("mixed", broker=URL, backend=URL, set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": VISIBILITY, "unacked_restore_interval": 1},
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
)


@app.task(name="mixed.work", bind=True)
def celery_work(self, seconds):
    ran(self.request.id)
    time.sleep(seconds)


@app.task(name="mixed.flaky", bind=True, max_retries=5)
def celery_flaky(self, failures):
    if self.request.retries < failures:
        raise self.retry(countdown=0.2)
    ran(self.request.id)


@app.task(name="mixed.pass_on", bind=True)
def celery_pass_on(self, value):
    ran(self.request.id)
    return value + 1


queue = TaskQueue(URL, lease=2.0, broker_transport_options={"visibility_timeout": VISIBILITY})


@queue.task(name="mixed.work", bind=True)
async def work(self, seconds):
    ran(self.request.id)
    await asyncio.sleep(seconds)


@queue.task(name="mixed.flaky", bind=True, max_retries=5)
async def flaky(self, failures):
    if self.request.retries < failures:
        raise self.retry(countdown=0.2)
    ran(self.request.id)


@queue.task(name="mixed.pass_on", bind=True)
async def pass_on(self, value):
    ran(self.request.id)
    return value + 1
