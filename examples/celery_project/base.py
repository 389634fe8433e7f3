"""What all tasks of the shop have in common: a base class with hooks, its own `__call__`, and its own request."""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.worker.request import Request

from examples.celery_project.store import note


class ShopRequest(Request):
    """As Celery documents it: told of failures by the worker."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        done = super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        note(self.id, "request.on_failure")
        return done


class ShopTask(Task):
    """Writes into the journal what its hooks are called with."""

    abstract = True
    Request = "examples.celery_project.base:ShopRequest"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        note(self.request.id, "__call__")
        return super().__call__(*args, **kwargs)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note(task_id, "before_start")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note(task_id, f"on_success {retval!r}")

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(task_id, f"on_retry {exc!r}")

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(task_id, f"on_failure {exc!r}")

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(task_id, f"after_return {status}")
