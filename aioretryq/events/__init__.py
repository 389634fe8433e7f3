"""Events: what workers and clients tell, for those who watch."""

from typing import TYPE_CHECKING

from aioretryq.lazy import later

if TYPE_CHECKING:
    from aioretryq.events.receiving import EventReceiver
    from aioretryq.events.state import State, TaskState, WorkerState
    from aioretryq.protocol.event import Event
else:
    # Not for those who only send them.
    __getattr__ = later(
        __name__,
        {
            "Event": "aioretryq.protocol.event:Event",
            "EventReceiver": "aioretryq.events.receiving:EventReceiver",
            "State": "aioretryq.events.state:State",
            "TaskState": "aioretryq.events.state:TaskState",
            "WorkerState": "aioretryq.events.state:WorkerState",
        },
    )

__all__ = ["Event", "EventReceiver", "State", "TaskState", "WorkerState"]
