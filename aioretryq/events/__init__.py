"""Events: what workers and clients tell, for those who watch."""

from aioretryq.events.receiving import EventReceiver
from aioretryq.events.state import State, TaskState, WorkerState
from aioretryq.protocol.event import Event

__all__ = ["Event", "EventReceiver", "State", "TaskState", "WorkerState"]
