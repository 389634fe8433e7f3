"""Celery's settings. `SHOP_REDIS` is the server."""

from __future__ import annotations

import os
from typing import Any

from kombu.entity import Exchange, Queue

broker_url = os.environ.get("SHOP_REDIS", "redis://localhost:6379/0")
result_backend = broker_url
result_extended = True
result_expires = 3600
broker_connection_retry_on_startup = True

imports = ("examples.celery_project.journal",)

task_queues = (
    Queue("shop"),
    Queue("mail", Exchange("letters", type="topic"), routing_key="mail.#"),
)
task_default_queue = "shop"
task_routes = {"examples.celery_project.mail.*": {"queue": "mail", "routing_key": "mail.outgoing"}}
task_track_started = True
task_time_limit = 60
task_annotations: dict[str, dict[str, Any]] = {"examples.celery_project.mail.newsletter": {"rate_limit": "600/m"}}

worker_prefetch_multiplier = 1
worker_max_tasks_per_child = 1000
