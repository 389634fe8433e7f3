"""The same tasks, for Celery; and its own view of what goes on."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Self

from celery import Celery
from celery.events.state import State
from celery.exceptions import Reject

URL = os.environ.get("INTEROP_REDIS")
app = Celery("events_celery", broker=URL, backend=URL, set_as_current=URL is not None)
app.conf.broker_connection_retry_on_startup = True
app.conf.task_send_sent_event = True


@app.task(name="events.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="events.plain", bind=True)
def plain(self: Any, x: int) -> int:
    self.send_event("task-progress", percent=50)
    return x


@app.task(name="events.fail")
def fail() -> None:
    raise ValueError("bad", 42)


@app.task(name="events.flaky", bind=True, max_retries=3)
def flaky(self: Any, failures: int) -> int:
    if self.request.retries < failures:
        raise self.retry(exc=KeyError("k"), countdown=0)
    return failures


@app.task(name="events.reject", acks_late=True)
def reject() -> None:
    raise Reject("no", requeue=False)


class CeleryView:
    """Celery's EventReceiver and State, fed in a thread."""

    def __init__(self, url: str) -> None:
        self._app = Celery(broker=url, set_as_current=False)
        self.state = State()
        self.events: list[dict[str, Any]] = []
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(10)
        self._app.close()

    def _run(self) -> None:
        with self._app.connection() as connection:
            receiver = self._app.events.Receiver(connection, handlers={"*": self._hear})
            while not self._stop:
                try:
                    for _ in receiver.itercapture(limit=None, timeout=0.1):
                        if self._stop:
                            return
                except TimeoutError:
                    continue

    def _hear(self, event: dict[str, Any]) -> None:
        self.events.append(dict(event))
        self.state.event(event)

    def of(self, uuid: str | None) -> list[dict[str, Any]]:
        return [event for event in list(self.events) if event.get("uuid") == uuid]

    def wait(self, uuid: str | None, kind: str, timeout: float = 30) -> dict[str, Any]:
        """The event of that type about that task."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for event in self.of(uuid):
                if event["type"] == kind:
                    return event
            time.sleep(0.01)
        raise AssertionError(f"there was no {kind} of {uuid}: {self.events}")
