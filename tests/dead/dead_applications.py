"""What `aioretryq dead` is pointed at in these tests."""

from __future__ import annotations

from aioretryq import TaskQueue

queue = TaskQueue("memory://")
