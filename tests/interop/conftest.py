"""What several tests with Celery share."""

from formats_fleet import client, fleet

__all__ = ["client", "fleet"]
