"""The application."""

from __future__ import annotations

from celery import Celery

from examples.celery_project.base import ShopTask

app = Celery("shop", task_cls=ShopTask)
app.config_from_object("examples.celery_project.config")
app.autodiscover_tasks(
    [f"examples.celery_project.{part}" for part in ("orders", "mail", "reports", "pictures")], related_name=None
)
