"""A queue whose tasks are those of a Celery application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu import serialization

from aioretryq.app import TaskQueue
from aioretryq.celery_bridge.task import CeleryTask
from aioretryq.celery_bridge.threads import Threads
from aioretryq.errors import ProtocolError
from aioretryq.protocol.task import decode_task

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Mapping

    from aioretryq.message import TaskMessage
    from aioretryq.task import Task


class CeleryQueue(TaskQueue):
    """`sender` stands for Celery's worker in signals, `hostname` is the name of the worker."""

    def __init__(self, app: Any, *, hostname: str, sender: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.celery = app
        self.hostname = hostname
        self.sender = sender
        self._bridges: dict[str, CeleryTask] = {}
        self._threads = Threads()
        self.lifespan(self._let_threads_end)

    async def _let_threads_end(self) -> AsyncIterator[None]:
        yield
        self._threads.close()

    def in_thread(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        return self._threads.run(call)

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        return {**super().tasks, **{name: self.find_task(name) for name in list(self.celery.tasks)}}

    def find_task(self, name: str) -> Task[Any, Any]:
        found = self._bridges.get(name)
        if found is not None:
            return found
        task = self.celery.tasks.get(name)
        if task is None:
            return super().find_task(name)
        made = self._bridges[name] = CeleryTask(task, self)
        return made

    def decode(self, payload: bytes) -> TaskMessage:
        """Also what only the application's own serializers and JSON types can read."""
        try:
            return super().decode(payload)
        except ProtocolError as error:
            try:
                return decode_task(payload, max_size=self.conf.max_payload_bytes, loads=self._loads)
            except Exception:  # of a serializer that may be anybody's
                raise error from None

    def _loads(self, data: bytes, content_type: str, encoding: str) -> Any:
        accepted = serialization.prepare_accept_content(self.celery.conf.accept_content)
        return serialization.loads(data, content_type, encoding, accept=accepted)

    @property
    def results_at(self) -> str | None:
        uri: str = self.celery.backend.as_uri()
        return None if uri == "disabled://" else uri
