"""The Celery half of the link tests: an application, its worker, and the client's view of it."""

from __future__ import annotations

from celery import Celery
from links_parts import URL, note

app = Celery("links_celery", broker=URL, backend=URL, set_as_current=False)
app.conf.broker_connection_retry_on_startup = True
app.conf.broker_transport_options = {"visibility_timeout": 3600}


@app.task(name="l.add")
def add(x, y=0):
    return x + y


@app.task(name="l.total")
def total(numbers):
    return sum(numbers)


@app.task(name="l.echo")
def echo(*args):
    return args[0] if len(args) == 1 else list(args)


@app.task(name="l.seen")
def seen(value, key):
    note(key, "celery", value)
    return value


@app.task(name="l.fail")
def fail(*args):
    raise ValueError("broken")


@app.task(name="l.flaky", bind=True, max_retries=3)
def flaky(self, value, failures=1):
    if self.request.retries < failures:
        raise self.retry(countdown=0)
    return value


@app.task(name="l.told")
def told(request, exc, traceback, key):
    note(key, "new", request.id, type(exc).__name__)


@app.task(name="l.told_id")
def told_id(task_id, key):
    note(key, "old", task_id)


@app.task(name="l.only_celery")
def only_celery(value):
    return value + 100
