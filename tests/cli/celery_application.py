"""An application of Celery, where one of ours is asked for."""

from celery import Celery

app = Celery("elsewhere", broker="redis://localhost")
