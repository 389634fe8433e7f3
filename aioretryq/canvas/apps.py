"""The queue that a signature belongs to: its task's, perhaps known only when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq.errors import ConfigError
from aioretryq.protocol.signature import Node
from aioretryq.registration import current_queue
from aioretryq.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.app import TaskQueue
    from aioretryq.protocol.members import Members

    App = TaskQueue | Callable[[], TaskQueue] | None


class FirstApp:
    """That of the first member which a generator makes; the member is made when the queue is needed."""

    def __init__(self, members: Members[Any], otherwise: App = None) -> None:
        self._members = members
        self.otherwise = otherwise

    def __call__(self) -> TaskQueue:
        return queue_of(either(next(map(app_of, self._members.first(1)), None), self.otherwise))

    def or_else(self, otherwise: App) -> FirstApp:
        return FirstApp(self._members, either(self.otherwise, otherwise))


def app_of(value: Any) -> App:
    """Of a signature or task, if it has one."""
    ours = isinstance(value, Task) or isinstance(getattr(value, "node", None), Node)
    found: App = value._app if ours else None
    return found


def either(app: App, other: App) -> App:
    """The first one that there is."""
    if isinstance(app, FirstApp):
        return app.or_else(other)
    return other if app is None else app


def queue_of(app: App) -> TaskQueue:
    """Without one the current queue."""
    if app is None:
        return current_queue()
    return app() if callable(app) else app


def tells_headers(app: App) -> bool:
    """Whether errbacks of a chord are told of the failures of its header by the header itself, too."""
    try:
        return queue_of(app.otherwise if isinstance(app, FirstApp) else app).conf.task_allow_error_cb_on_chord_header
    except ConfigError:  # there is no queue yet
        return False
