"""From our message to the request that Celery's worker would have made of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from celery.utils.imports import symbol_by_name
from kombu.message import Message

from aioretryq.protocol.task import headers_of

if TYPE_CHECKING:
    from celery.app.task import Context

    from aioretryq.context import Request
    from aioretryq.message import TaskMessage


class Receipt:
    """What Celery's request has said of its message: nothing yet, or that it is done with, rejected, wanted again."""

    def __init__(self) -> None:
        self.rejected = False
        self.requeued = False

    def acknowledge(self, *_: Any) -> None:
        """Ours is acknowledged when the run is settled, whenever Celery would have done it."""

    def reject(self, _logger: Any, _errors: Any, requeue: bool = False) -> None:
        self.rejected, self.requeued = True, requeue


def celery_request(task: Any, message: TaskMessage, request: Request, receipt: Receipt) -> Any:
    """An instance of the task's `Request` class. Its pool may run it in place."""
    headers = _headers(message, request)
    embed = {
        "callbacks": message.callbacks,
        "errbacks": message.errbacks,
        "chain": message.chain,
        "chord": message.chord,
    }
    native = Message(
        content_type=message.content_type,
        content_encoding="utf-8",
        delivery_info={
            "exchange": message.exchange,
            "routing_key": message.routing_key,
            "redelivered": bool(request.delivery_info.get("redelivered")),
        },
        properties=_properties(message),
        headers=headers,
    )
    return symbol_by_name(task.Request)(
        native,
        on_ack=receipt.acknowledge,
        on_reject=receipt.reject,
        hostname=request.hostname,
        app=task.app,
        task=task,
        body=(message.args, message.kwargs, embed),
        headers=headers,
        decoded=True,
        utc=True,
    )


def context_of(found: Any) -> Context:
    """The context of a request that is not run: for backends and signals."""
    context: Context = found._context
    return context


def _headers(message: TaskMessage, request: Request) -> dict[str, Any]:
    return {**headers_of(message), "timelimit": [_finite(request.time_limit), _finite(request.soft_time_limit)]}


def _finite(limit: float | None) -> float | None:
    return None if limit == math.inf else limit


def _properties(message: TaskMessage) -> dict[str, Any]:
    return {
        "correlation_id": message.correlation_id or message.id,
        "reply_to": message.reply_to or "",
        "delivery_mode": message.delivery_mode,
        "delivery_info": {"exchange": message.exchange, "routing_key": message.routing_key},
        "priority": message.priority,
    }
