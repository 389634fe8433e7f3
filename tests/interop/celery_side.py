"""The Celery half of the interop tests: an application, and a client that is run as a program.

`python celery_side.py NAME ARGS_JSON [OPTIONS_JSON]` sends a task with Celery, waits for it with Celery, and
prints what came back as JSON.
"""

from __future__ import annotations

import json
import os
import sys

from celery import Celery

URL = os.environ["INTEROP_REDIS"]
app = Celery("celery_side", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True


@app.task(name="interop.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="interop.fail")
def fail(message: str) -> None:
    raise ValueError(message, 42)


@app.task(name="interop.flaky", bind=True, autoretry_for=(OSError,), default_retry_delay=0, max_retries=3)
def flaky(self, failures: int) -> int:
    if self.request.retries < failures:
        raise self.retry(exc=OSError(5, "not yet"), countdown=0)
    return self.request.retries


@app.task(name="interop.celery_only")
def celery_only(number: int) -> int:
    return number


@app.task(name="interop.echo")
def echo(value):
    return value


def main() -> None:
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    options = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    result = app.send_task(name, args=arguments, **options)
    try:
        value = result.get(timeout=20)
        said = {"value": value}
    except Exception as error:
        said = {"error": type(error).__name__, "module": type(error).__module__, "args": list(error.args)}
    sys.stdout.write(json.dumps({**said, "id": result.id, "state": result.state}))


if __name__ == "__main__":
    main()
