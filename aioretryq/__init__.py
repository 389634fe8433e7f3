"""An awaitable Celery."""
