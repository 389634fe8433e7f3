"""Jobs as remote control shows them (celery/worker/request.py, Request.info)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from aioretryq.protocol.saferepr import saferepr

if TYPE_CHECKING:
    from aioretryq.message import TaskMessage
    from aioretryq.worker.jobs import Job

SMALL = 16 * 1024
"""Bytes of a message whose arguments are shown as they are; of a larger one they are shortened."""


def info(job: Job, message: TaskMessage, node: str, *, safe: bool = False) -> dict[str, Any]:
    """`safe` shows the arguments as texts."""
    delivery = job.delivery
    args: Any = message.args
    kwargs: Any = message.kwargs
    if safe or len(delivery.body) > SMALL:
        args = message.argsrepr if message.argsrepr is not None else saferepr(tuple(args))
        kwargs = message.kwargsrepr if message.kwargsrepr is not None else saferepr(kwargs)
    return {
        "id": message.id,
        "name": message.task,
        "args": args,
        "kwargs": kwargs,
        "type": message.task,
        "hostname": node,
        "time_start": job.started_at if job.started else None,
        "acknowledged": not job.held,
        "delivery_info": {
            "exchange": message.exchange,
            "routing_key": delivery.queue,
            "priority": message.priority,
            "redelivered": delivery.redelivered,
        },
        "worker_pid": os.getpid() if job.started else None,
    }
