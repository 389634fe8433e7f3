"""A Celery application that speaks every serializer: one of its tasks for each in which it stores results."""

from __future__ import annotations

import json
import os
from pathlib import Path

from celery import Celery, chain, group
from celery.backends.redis import RedisBackend
from celery.security.serialization import register_auth

URL = os.environ["INTEROP_REDIS"]
KEYS = json.loads(os.environ["INTEROP_KEYS"])
NAMES = ("json", "yaml", "msgpack", "pickle", "auth")

register_auth(
    Path(KEYS["security_key"]).read_text(),
    None,
    Path(KEYS["security_certificate"]).read_text(),
    KEYS["security_cert_store"],
)
app = Celery("formats_celery", broker=URL, backend=URL)
app.conf.update(
    accept_content=list(NAMES),
    task_default_queue="theirs",
    result_extended=True,
    task_track_started=True,
    broker_connection_retry_on_startup=True,
)


def backend(serializer: str, compression: str | None) -> RedisBackend:
    made = RedisBackend(url=URL, app=app, serializer=serializer)
    made.compression = compression
    return made


def echo(value):
    return value


def fail(message):
    raise LookupError(message, 42)


for name in NAMES:
    for compression in (None, "zlib", "zstd"):
        options = {"backend": backend(name, compression)}
        app.task(name=f"echo.{name}.{compression}", **options)(echo)
        app.task(name=f"fail.{name}.{compression}", **options)(fail)


@app.task(name="theirs.parent")
def parent():
    """Sends a task and a group."""
    app.send_task("echo.json.None", (1,))
    group(app.signature("echo.json.None", (number,)) for number in (2, 3)).apply_async()
    return "sent"


@app.task(name="theirs.again", bind=True, max_retries=3)
def again(self):
    if self.request.retries == 0:
        raise self.retry(exc=OSError(5, "not yet"), countdown=0)
    return "done"


@app.task(name="theirs.progress", bind=True)
def progress(self):
    self.update_state(state="PROGRESS", meta={"percent": 50})


@app.task(name="theirs.silent", ignore_result=True)
def silent():
    return 1


__all__ = ["app", "chain"]
