"""An application with a setting that does not exist."""

from aioretryq import TaskQueue

queue = TaskQueue("memory://", task_ack_late=True)
