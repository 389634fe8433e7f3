"""The tasks of the matrix as a Celery application."""

from __future__ import annotations

import time

from celery import Celery
from matrix_parts import URL, OutOfStock, note

app = Celery("matrix", broker=URL, backend=URL, set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True,
    accept_content=["json", "yaml", "msgpack", "pickle"],
    result_extended=True,
    worker_send_task_events=True,
    worker_prefetch_multiplier=1,
)


@app.task(name="m.add")
def add(x, y):
    return x + y


@app.task(name="m.who")
def who():
    return "celery"


@app.task(name="m.echo")
def echo(value):
    return value


@app.task(name="m.total")
def total(values):
    return sum(values)


@app.task(name="m.flaky", bind=True, max_retries=3)
def flaky(self, failures):
    if self.request.retries < failures:
        raise self.retry(exc=OSError(5, "not yet"), countdown=0.05)
    return self.request.retries


@app.task(name="m.fail")
def fail(article, missing):
    raise OutOfStock(article, missing)


@app.task(name="m.broken")
def broken(*args):
    raise ValueError("broken", 42)


@app.task(name="m.seen")
def seen(key, *args):
    note(key, *args)
    return key


@app.task(name="m.sleep")
def sleep(seconds):
    time.sleep(seconds)
    return seconds


@app.task(name="m.told")
def told(task_id):
    note(task_id, "told", task_id)


@app.task(name="m.told_why")
def told_why(request, exc, traceback):
    note(request.id, "told why", request.id, type(exc).__name__)
