"""Celery's application of the tree tests."""

from __future__ import annotations

from canvas.tree_tasks import define
from celery import Celery
from trees_parts import URL, note

app = Celery("trees_celery", broker=URL, backend=URL, set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 3600},
    worker_enable_remote_control=True,
    worker_send_task_events=False,
)
define(app.task, note)
