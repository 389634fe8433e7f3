"""Task states, as Celery names them (celery/states.py), and which of them are final."""

from __future__ import annotations

from typing import Final

PENDING: Final = "PENDING"  # nothing is known of the task: not sent, not started, or expired
RECEIVED: Final = "RECEIVED"
STARTED: Final = "STARTED"
RETRY: Final = "RETRY"
SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
REVOKED: Final = "REVOKED"

FINAL: Final = frozenset({SUCCESS, FAILURE, REVOKED})
"""A stored final state is never overwritten."""

WITH_EXCEPTION: Final = frozenset({RETRY, FAILURE, REVOKED})
"""States whose `result` is an exception."""

PROPAGATED: Final = frozenset({FAILURE, REVOKED})
"""States in which `get()` raises."""
