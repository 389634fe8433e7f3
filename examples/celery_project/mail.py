"""Letters, on a queue of their own behind a topic exchange."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from examples.celery_project.store import database


@shared_task(ignore_result=True)
def confirm(order: int) -> str:
    database().rpush("shop:letters", f"order {order} is confirmed")
    return "dropped"


@shared_task(bind=True)
def newsletter(self: Any, number: int) -> str:
    """Limited to 600 a minute by `task_annotations`."""
    return f"{number} {self.rate_limit}"


@shared_task
def apologize(task_id: str) -> None:
    """An errback of the old kind: called with the id of the task that failed."""
    database().rpush("shop:apologies", task_id)


@shared_task
def investigate(request: Any, error: BaseException, traceback: str) -> None:
    """An errback of the new kind."""
    database().rpush("shop:investigations", f"{request.id} {type(error).__name__}")
