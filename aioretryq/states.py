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
"""What nothing comes after; a stored one is not overwritten, but see `stays`."""

WITH_EXCEPTION: Final = frozenset({RETRY, FAILURE, REVOKED})
"""States whose `result` is an exception."""

PROPAGATED: Final = frozenset({FAILURE, REVOKED})
"""States in which `get()` raises."""

RUN_TO_ITS_END: Final = frozenset({SUCCESS, FAILURE})
"""Final states that only a run gives."""


def stays(stored: str | None, new: str) -> bool:
    """Whether a stored state is not overwritten with a new one: it is final.

    But whoever revokes a task stores REVOKED without knowing whether it runs. Where it does, its run says what came
    of it in the end.
    """
    return stored in FINAL and not (stored == REVOKED and new in RUN_TO_ITS_END)
