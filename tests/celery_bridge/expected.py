"""What each scenario of `shop_client.py` comes to, whichever worker runs it."""

from __future__ import annotations

from typing import Any

VALUES: dict[str, Any] = {
    "value": 1.75,
    "own retries": {"order": 1, "attempts": 3},
    "autoretry": 2,
    "reject and requeue": 2,
    "topic exchange, annotation": "4 600/m",
    "countdown": 3.0,
    "eta": 4.0,
    "typed json": "datetime.datetime(2026, 1, 2, 0, 0, tzinfo=datetime.timezone.utc)",
    "compressed": "x" * 1000,
    "protocol 1": 6.0,
}
"""Of tasks that succeed."""

ERRORS: dict[str, tuple[str, list[str], str]] = {
    "retries run out": ("PaymentDown", ["1"], "FAILURE"),
    "autoretry runs out": ("PaymentDown", ["1"], "FAILURE"),
    "expected error": ("OutOfStock", ["chair", "3"], "FAILURE"),
    "reject": ("Reject", ["no", "False"], "FAILURE"),
    "expired": ("TaskRevokedError", ["expired"], "REVOKED"),
}

PLAIN: dict[str, Any] = {
    "ignore, own state": {"boxes": 2},
    "ignored result": ["order 7 is confirmed"],
    "chain": 16,
    "chain fails": ["ValueError", "no figures for 1"],
    "group": [0, 2, 4, 6, 8],
    "chord": 12,
    "chord fails": ["ValueError", "no figures for 2"],
    "callback": ["42"],
    "errbacks": [True, True],
    "replaced by a chord": 12,
    "composed in a task": 13,
    "long canvas": 130,
}

REQUEST: dict[str, Any] = {
    "id": True,
    "args": [],
    "kwargs": {},
    "retries": 0,
    "root": True,
    "parent": None,
    "routing_key": "shop",
    "exchange": "",
    "redelivered": False,
    "correlation": True,
    "has_reply_to": True,
    "has_origin": True,
    "has_hostname": True,
    "eager": False,
    "direct": False,
}
REQUESTS: dict[str, dict[str, Any]] = {
    "request": {**REQUEST, "priority": 3, "timelimit": [50, 40], "headers": {"tenant": "north"}, "stamps": {}},
    "stamps": {**REQUEST, "priority": 0, "timelimit": [60, None], "headers": {}, "stamps": {"wave": ["a"]}},
}

JOURNALS: dict[str, list[str]] = {
    "value": [
        "__call__",
        "after_return SUCCESS",
        "before_start",
        "on_success 1.75",
        "task_postrun SUCCESS",
        "task_prerun retries=0",
        "task_received total [[1, 2.5]]",
        "task_success 1.75",
    ],
    "autoretry runs out": [
        *["__call__"] * 3,
        "after_return FAILURE",
        *["before_start"] * 3,
        "on_failure PaymentDown(1)",
        *["on_retry PaymentDown(1)"] * 2,
        *["request.on_failure"] * 3,
        "task_failure PaymentDown(1)",
        "task_postrun FAILURE",
        *["task_postrun RETRY"] * 2,
        *[f"task_prerun retries={n}" for n in range(3)],
        *["task_received refund [1, 9]"] * 3,
        *["task_retry PaymentDown(1)"] * 2,
    ],
    "reject": [
        "__call__",
        "before_start",
        "request.on_failure",
        "task_failure reject requeue=False: no",
        "task_postrun REJECTED",
        "task_prerun retries=0",
        "task_received refuse ['no']",
    ],
    "expired": ["task_revoked terminated=False expired=True"],
}
"""Sorted, of some; those of both workers are compared for all."""
