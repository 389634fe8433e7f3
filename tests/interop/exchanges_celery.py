"""The Celery half of the tests of exchanges: `celery -A exchanges_celery worker`.

`python exchanges_celery.py QUEUE NUMBER` sends a task from a program that has declared nothing before.
"""

from __future__ import annotations

import os
import sys

import redis
from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast

URL = os.environ["INTEROP_REDIS"]
app = Celery("exchanges_celery", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True
app.conf.broker_transport_options = {"global_keyprefix": os.environ.get("INTEROP_PREFIX", "")}
app.conf.task_queues = [
    Queue("celery", Exchange("celery"), routing_key="celery"),
    Queue("celery-errors", Exchange("logs", type="topic"), routing_key="*.error"),
    Queue("celery-parcels", Exchange("post"), routing_key="parcel"),
    Broadcast("news"),
    Queue("b", Exchange("f", type="fanout"), routing_key="loud"),
]
app.conf.task_routes = {"exchanges.fan": {"queue": "b"}}


@app.task(name="exchanges.note", bind=True)
def note(self, value: object) -> None:
    """Has the tests know who ran it, and where it came from."""
    with redis.Redis.from_url(URL) as server:
        info = self.request.delivery_info
        server.rpush("ran", f"celery {info['exchange']} {info['routing_key']} {value}")


@app.task(name="exchanges.fan", bind=True)
def fan(self, value: object) -> None:
    note.run.__func__(self, value)


if __name__ == "__main__":
    app.send_task("exchanges.note", [int(sys.argv[2])], queue=sys.argv[1])
