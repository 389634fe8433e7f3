"""A Celery client of the example shop, run as a program: sends everything at once, prints what came back as JSON.

`python shop_client.py` asks each scenario; `python shop_client.py NAME ...` some of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import chain, chord, group
from celery.result import AsyncResult

from examples.celery_project import app, mail, orders, pictures, reports
from examples.celery_project.store import database, journal

TIMEOUT = 30
Sent = Any
SCENARIOS: dict[str, tuple[Callable[[], Sent], Callable[[Sent], Any]]] = {}


def told(result: AsyncResult) -> dict[str, Any]:
    """Value or error, state, and the journal without its order: a retry may run before its predecessor has ended."""
    try:
        said: dict[str, Any] = {"value": plain(result.get(timeout=TIMEOUT))}
    except Exception as error:
        said = {"error": type(error).__name__, "args": [str(each) for each in error.args]}
    wait_for(lambda: settled(result))
    return {**said, "state": result.state, "journal": sorted(journal(result.id))}


def plain(value: Any) -> Any:
    return repr(value) if isinstance(value, datetime) else value


def settled(result: AsyncResult) -> bool:
    lines = journal(result.id)
    if result.state == "REVOKED":
        return any(line.startswith("task_revoked") for line in lines)
    begun = sum(line.startswith("task_prerun") for line in lines)
    ended = sum(line.startswith("task_postrun") for line in lines)
    failed = sum(line.startswith(("task_postrun FAIL", "task_postrun RETRY", "task_postrun REJ")) for line in lines)
    return 0 < begun == ended and sum(line == "request.on_failure" for line in lines) >= failed


def wait_for(condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
    """Polled: what is waited for is in a database that cannot tell."""
    deadline = time.monotonic() + timeout
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def scenario(name: str, send: Callable[[], Sent], ask: Callable[[Sent], Any] = told) -> None:
    SCENARIOS[name] = (send, ask)


def value_of(result: AsyncResult) -> Any:
    return result.get(timeout=TIMEOUT)


def kept(key: str) -> Any:
    return wait_for(lambda: database().lrange(f"shop:kept:{key}", 0, -1))


def failed(result: AsyncResult) -> Any:
    try:
        return result.get(timeout=TIMEOUT)
    except Exception as error:
        return [type(error).__name__, str(error).split("Task")[0].strip()]


scenario("value", lambda: orders.total.delay([1, 2.5], discount=0.5))
scenario("own retries", lambda: orders.pay.delay(1, 2))
scenario("retries run out", lambda: orders.pay.delay(1, 9))
scenario("autoretry", lambda: orders.refund.delay(1, 2))
scenario("autoretry runs out", lambda: orders.refund.delay(1, 9))
scenario("expected error", lambda: orders.reserve.delay("chair", 3))
scenario("reject and requeue", lambda: orders.count_once.delay("lamp"))
scenario("reject", lambda: orders.refuse.delay("no"))
scenario(
    "ignore, own state",
    lambda: orders.set_state.delay(),
    lambda sent: wait_for(lambda: sent.state == "PACKED" and sent.info),
)
scenario(
    "request",
    lambda: orders.describe.apply_async(
        headers={"tenant": "north"}, priority=3, time_limit=50, soft_time_limit=40, retry=True
    ),
)
scenario("stamps", lambda: (sign := orders.describe.s(), sign.stamp(visitor=None, wave=["a"]), sign.delay())[2])
scenario(
    "ignored result",
    lambda: mail.confirm.delay(7),
    lambda sent: wait_for(lambda: database().lrange("shop:letters", 0, -1)),
)
scenario("topic exchange, annotation", lambda: mail.newsletter.delay(4))
scenario("countdown", lambda: orders.total.apply_async(([3],), countdown=0.4))
scenario("eta", lambda: orders.total.apply_async(([4],), eta=datetime.now(UTC) + timedelta(seconds=0.3)))
scenario("expired", lambda: orders.total.apply_async(([5],), expires=datetime.now(UTC) - timedelta(seconds=5)))
scenario("typed json", lambda: reports.keep.delay(datetime(2026, 1, 2, tzinfo=UTC), "typed"))
scenario("compressed", lambda: reports.keep.apply_async(("x" * 1000, "compressed"), compression="zlib"))
scenario("protocol 1", lambda: send_protocol_1())
scenario("chain", lambda: chain(reports.add.s(1, 2), reports.double.s(), reports.add.s(10)).delay(), value_of)
scenario("chain fails", lambda: chain(reports.broken.s(1), reports.double.s()).delay(), failed)
scenario("group", lambda: group(reports.double.s(n) for n in range(5)).delay(), value_of)
scenario("chord", lambda: chord([reports.double.s(n) for n in range(4)], reports.collect.s()).delay(), value_of)
scenario(
    "chord fails", lambda: chord([reports.double.s(1), reports.broken.s(2)], reports.collect.s()).delay(), failed
)
scenario(
    "callback", lambda: reports.double.apply_async((21,), link=reports.keep.s("link")), lambda sent: kept("link")
)
scenario(
    "errbacks",
    lambda: reports.broken.apply_async((3,), link_error=[mail.apologize.s(), mail.investigate.s()]),
    lambda sent: [
        wait_for(lambda: database().lrange("shop:apologies", 0, -1)) == [sent.id],
        wait_for(lambda: database().lrange("shop:investigations", 0, -1)) == [f"{sent.id} ValueError"],
    ],
)
scenario("replaced by a chord", lambda: reports.quarterly.delay([1, 2, 3]), value_of)
scenario(
    "composed in a task", lambda: reports.start_yearly.delay(4), lambda sent: value_of(app.AsyncResult(sent.get()))
)
scenario("long canvas", lambda: reports.yearly(6).delay(), value_of)


def send_protocol_1() -> AsyncResult:
    before, app.conf.task_protocol = app.conf.task_protocol, 1
    app.amqp.__dict__.pop("create_task_message", None)
    try:
        return orders.total.delay([6])
    finally:
        app.conf.task_protocol = before
        app.amqp.__dict__.pop("create_task_message", None)


# What Celery's own worker cannot do

scenario("coroutine", lambda: pictures.fetch.delay("cat"))
scenario("coroutine, own retries", lambda: pictures.upload.delay(2))
scenario("coroutine, retries run out", lambda: pictures.upload.delay(9))
scenario("coroutine, autoretry", lambda: pictures.resize.delay(2))
scenario("coroutine, soft limit", lambda: pictures.wait.apply_async((30,), soft_time_limit=0.2))
scenario("coroutine, hard limit", lambda: pictures.wait.apply_async((30,), time_limit=0.2))
scenario("coroutine, chain", lambda: chain(pictures.upload.s(0), reports.add.s(5)).delay(), value_of)
scenario(
    "coroutine, chord",
    lambda: chord([pictures.upload.s(n) for n in (0, 1, 2)], reports.collect.s()).delay(),
    value_of,
)
scenario("coroutine, SystemExit", lambda: pictures.leave.delay())
scenario("SystemExit", lambda: orders.leave.delay())
BEYOND_CELERY = [name for name in SCENARIOS if name.startswith("coroutine")] + ["SystemExit"]


def main() -> None:
    names = sys.argv[1:]
    sent = {name: SCENARIOS[name][0]() for name in names}
    sys.stdout.write(json.dumps({name: SCENARIOS[name][1](sent[name]) for name in names}))


if __name__ == "__main__":
    main()
