"""The tasks of `chord_kills` for a Celery worker. With KILL_AT it dies when it has the right to send a body, and has
not sent it yet; with LATE it acknowledges late."""

from __future__ import annotations

import os
import signal

import redis
from celery import Celery

URL = os.environ["AIORETRYQ_URL"]
app = Celery("chord_kills", broker=URL, backend=URL, set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 2, "unacked_restore_interval": 1},
    worker_prefetch_multiplier=1,
    task_acks_late=bool(os.environ.get("LATE")),
)
server = redis.Redis.from_url(URL)


@app.task(name="k.part")
def part(number):
    server.hincrby("runs", f"part {number}", 1)
    return number


@app.task(name="k.body")
def body(values):
    server.hincrby("runs", "body", 1)
    return values


if os.environ.get("KILL_AT"):
    backend = type(app.backend)

    def die(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    backend._chord_publish_claim_expires = die
