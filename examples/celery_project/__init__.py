"""A web shop's background work, written for Celery: nothing in here knows of aioretryq.

    celery -A examples.celery_project worker -P threads
    aioretryq worker --celery examples.celery_project

The only thing that Celery's worker cannot run are the two coroutines in `pictures.py`.
"""

from examples.celery_project.celery import app

__all__ = ["app"]
