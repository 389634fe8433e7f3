"""Orders: retries, errors, acknowledgement."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery import shared_task
from celery.exceptions import Ignore, Reject

from examples.celery_project.store import database, note


class OutOfStock(Exception):
    """With more arguments than a message."""

    def __init__(self, article: str, missing: int) -> None:
        super().__init__(article, missing)
        self.article = article
        self.missing = missing


class PaymentDown(Exception):
    """Goes away."""


@shared_task
def total(prices: list[float], discount: float = 0.0) -> float:
    return round(sum(prices) * (1 - discount), 2)


@shared_task(bind=True, max_retries=3, default_retry_delay=0)
def pay(self: Any, order: int, failures: int) -> dict[str, Any]:
    """Asks for its retries itself."""
    try:
        if self.request.retries < failures:
            raise PaymentDown(order)
    except PaymentDown as error:
        raise self.retry(exc=error, countdown=0) from error
    return {"order": order, "attempts": self.request.retries + 1}


@shared_task(bind=True, autoretry_for=(PaymentDown,), retry_kwargs={"max_retries": 2, "countdown": 0})
def refund(self: Any, order: int, failures: int) -> int:
    if self.request.retries < failures:
        raise PaymentDown(order)
    return int(self.request.retries)


@shared_task(throws=(OutOfStock,))
def reserve(article: str, count: int) -> None:
    raise OutOfStock(article, count)


@shared_task(bind=True, acks_late=True)
def count_once(self: Any, article: str) -> int:
    """Puts its message back the first time it sees it."""
    seen = int(database().incr(f"shop:seen:{self.request.id}"))
    if seen == 1:
        raise Reject("once more", requeue=True)
    return seen


@shared_task(acks_late=True)
def refuse(reason: str) -> None:
    raise Reject(reason, requeue=False)


@shared_task(bind=True)
def set_state(self: Any) -> None:
    self.update_state(state="PACKED", meta={"boxes": 2})
    raise Ignore


@shared_task(bind=True)
def describe(self: Any) -> dict[str, Any]:
    """What a task may know of its own run."""
    request = self.request
    return {
        "id": request.id == self.request_stack.top.id,
        "args": list(request.args),
        "kwargs": request.kwargs,
        "retries": request.retries,
        "root": request.root_id == request.id,
        "parent": request.parent_id,
        "routing_key": request.delivery_info["routing_key"],
        "exchange": request.delivery_info["exchange"],
        "priority": request.delivery_info["priority"],
        "redelivered": bool(request.delivery_info["redelivered"]),
        "timelimit": list(request.timelimit),
        "headers": {name: value for name, value in (request.headers or {}).items() if name == "tenant"},
        "correlation": request.correlation_id == request.id,
        "has_reply_to": bool(request.reply_to),
        "has_origin": bool(request.origin),
        "has_hostname": bool(request.hostname),
        "eager": request.is_eager,
        "direct": request.called_directly,
        "stamps": request.stamps,
    }


@shared_task(bind=True)
def slow(self: Any, seconds: float) -> str:
    note(self.request.id, "slow begins")
    time.sleep(seconds)
    return "done"


@shared_task(bind=True)
def kill_worker_once(self: Any) -> int:
    """As a crash would: the first run takes its worker with it."""
    runs = int(database().incr(f"shop:runs:{self.request.id}"))
    if runs == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return runs


@shared_task(bind=True, acks_late=False)
def charge_card(self: Any) -> int:
    """Must not run twice: its author prefers losing it."""
    return int(database().incr(f"shop:charged:{self.request.id}"))


@shared_task
def leave() -> None:
    raise SystemExit(3)


@shared_task(bind=True, max_deliveries=1)
def kill_every_worker(self: Any) -> None:
    """`max_deliveries` is an option of aioretryq; Celery's worker does not look at it."""
    database().incr(f"shop:runs:{self.request.id}")
    os.kill(os.getpid(), signal.SIGKILL)
