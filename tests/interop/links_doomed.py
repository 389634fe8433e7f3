"""The Celery half of the link tests, whose worker is killed when it has the right to send a chord's body."""

from __future__ import annotations

import os
import signal

from celery.backends.redis import RedisBackend
from links_celery import app

__all__ = ["app"]


def die(backend: RedisBackend) -> None:
    """In place of what renews that right, the last thing before it sends."""
    os.kill(os.getpid(), signal.SIGKILL)


RedisBackend._chord_claim_extend_script = property(die)
