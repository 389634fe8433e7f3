"""Events as lines of text: the format of `celery events --dump`, and JSON."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aioretryq.protocol import jsontypes

if TYPE_CHECKING:
    from aioretryq.protocol.event import Event

WORKER_EVENTS = {"worker-offline": "shutdown", "worker-online": "started", "worker-heartbeat": "heartbeat"}
NAMED = ("task-received", "task-sent")
REMEMBERED = 4096


class Lines:
    """One line for each event. Remembers the calls of tasks, since only some events name them."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, str] = OrderedDict()

    def line(self, event: Event) -> str:
        # In the order, and with the extra fields, that users of Celery's own know.
        fields: dict[str, Any] = {
            "utcoffset": event.utcoffset,
            "pid": event.pid,
            "clock": event.clock,
            "local_received": event.received,
            **event.fields,
        }
        call = ""
        if event.type.startswith("task-"):
            call = f"{self._call(event, fields)} "
        listing = ", ".join(f"{name}={fields[name]}" for name in sorted(fields))
        kind = WORKER_EVENTS.get(event.type, event.type.replace("-", " "))
        moment = datetime.fromtimestamp(event.timestamp, UTC)
        return printable(f"{event.hostname} [{moment}] {kind}: {call}{listing}")

    def _call(self, event: Event, fields: dict[str, Any]) -> str:
        uuid = str(fields.pop("uuid"))
        if event.type in NAMED:
            name, args, kwargs = (fields.pop(field, None) for field in ("name", "args", "kwargs"))
            self._calls[uuid] = f"{name}({uuid}) args={args} kwargs={kwargs}"
            if len(self._calls) > REMEMBERED:
                self._calls.popitem(last=False)
        return self._calls.get(uuid, uuid)


def as_json(event: Event) -> str:
    """One line of JSON: the event as it came, and when."""
    return jsontypes.dumps({**event.as_dict(), "local_received": event.received}).decode()


def printable(text: str) -> str:
    """Whoever can write to the broker must not rule the terminal: line ends and control characters are escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
