"""A Celery application that only sends and waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery
from kombu import pools


@contextmanager
def celery_client(url: str) -> Iterator[Celery]:
    """Closed without anything left behind: neither connections nor results that are collected later."""
    with Celery(url, broker=url, backend=url, set_as_current=False) as app:
        yield app
        app.backend.result_consumer.stop()
        app.backend.result_consumer.cancel_for = lambda task_id: None
        app.backend.client.connection_pool.disconnect()
    pools.reset()  # they belong to the URL, not to the application: the next one would find them closed
