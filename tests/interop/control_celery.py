"""The Celery half of the tests of remote control: an application, and what a user of Celery does with it.

`python control_celery.py` reads a step as JSON from each line and prints what came of it. A step is
`["cli", words...]` (the `celery` command line), `["inspect" or "control", method, arguments, options]`,
`["send", task, args, options]` or `["wait", id]`.
"""

from __future__ import annotations

import json
import os
import sys
import time

from celery import Celery
from celery.bin.celery import celery
from celery.worker.control import inspect_command
from click.testing import CliRunner

URL = os.environ["INTEROP_REDIS"]
app = Celery("control_celery", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True
app.conf.task_track_started = True


@app.task(name="both.sleep")
def sleep(seconds):
    time.sleep(seconds)
    return "slept"


@app.task(name="theirs.echo")
def echo(value):
    return value


@inspect_command(args=[("n", int)])
def their_square(state, n=2):
    return {"square": n * n}


def step(kind, *rest):
    if kind == "cli":
        done = CliRunner().invoke(celery, ["-A", "control_celery", *rest])
        return {"code": done.exit_code, "output": done.output}
    if kind == "inspect":
        method, arguments, options = (*rest, {}, {})[:3]
        return app.control.inspect(**{"timeout": 10, "limit": 1, **options})._request(method, **arguments)
    if kind == "control":
        method, arguments, options = (*rest, {}, {})[:3]
        return app.control.broadcast(method, arguments, **{"reply": True, "timeout": 10, "limit": 1, **options})
    if kind == "send":
        task, args, options = (*rest, {})[:3]
        return app.send_task(task, args=args, **options).id
    result = app.AsyncResult(rest[0])
    try:
        value = result.get(timeout=20)
    except Exception as error:
        value = f"{type(error).__name__}: {error}"
    return {"state": result.state, "value": value}


def main():
    for line in sys.stdin:
        sys.stdout.write(json.dumps(step(*json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
