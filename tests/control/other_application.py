"""For `aioretryq worker other_application:queue`: another application at the same broker."""

from __future__ import annotations

import os

from aioretryq import TaskQueue

queue = TaskQueue(os.environ.get("CONTROL_URL", "memory://"))


@queue.inspect_command
def largest(state):
    """The largest of whatever it has."""
    return {"largest": 7}
