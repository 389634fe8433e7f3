"""Watching: the events of workers and clients, of this kind and Celery's, as they come."""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import AsyncExitStack
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Self

from aioretryq.errors import BrokerUnavailable, ProtocolError
from aioretryq.outage import Outage
from aioretryq.protocol.event import Event, decode_events, sender_of
from aioretryq.protocol.saferepr import saferepr
from aioretryq.tally import Tally

if TYPE_CHECKING:
    from types import TracebackType

    from aioretryq.app import TaskQueue
    from aioretryq.brokers.base import BusListener
    from aioretryq.message import Broadcast


logger = logging.getLogger("aioretryq")


class EventReceiver:
    """Made by `TaskQueue.events`: `async with queue.events() as events: async for event in events: ...`.

    Hears what is sent from the moment it is entered, and goes on after an outage: what was sent meanwhile is gone.
    What cannot be read is skipped, counted in `skipped`, and told in the log with its sender.
    """

    def __init__(self, queue: TaskQueue, types: tuple[str, ...] = ()) -> None:
        self._queue = queue
        self._types = types
        self._listener: BusListener | None = None
        self._listening = AsyncExitStack()
        self._ready: deque[Event] = deque()
        self._refused = Tally("%d events were skipped: %s")
        self._outage: Outage | None = None

    @property
    def skipped(self) -> int:
        """Events, and messages of events, that could not be read."""
        return self._refused.total

    async def __aenter__(self) -> Self:
        self._outage = Outage(f"Broker {self._queue.broker.display_url} (events)")
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._listener = None
        await self._listening.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event, however long it takes. May be cancelled at any moment; then nothing is lost."""
        while not self._ready:
            for message in await self._receive():
                self._ready.extend(self._read(message))
        return self._ready.popleft()

    async def _receive(self) -> list[Broadcast]:
        if self._listener is None:
            await self._listen_again()
        assert self._listener is not None
        try:
            return await self._listener.receive()
        except BrokerUnavailable as error:
            assert self._outage is not None
            self._outage.down(error)
            self._listener = None
            return []

    async def _listen(self) -> None:
        listening = self._queue.broker.bus().listen(self._queue.conf.event_exchange)
        self._listener = await self._listening.enter_async_context(listening)
        # Workers then say at once that they are there. So does Celery's receiver, and its workers know it, too.
        await self._queue.control.broadcast("heartbeat", reply=False)

    async def _listen_again(self) -> None:
        assert self._outage is not None
        await self._listening.aclose()
        self._listening = AsyncExitStack()
        await self._outage.survive(self._listen)

    def _read(self, message: Broadcast) -> list[Event]:
        accepted = {"json", self._queue.conf.event_serializer}
        try:
            found = decode_events(message.body, accept_content=accepted, now=time.time())
        except ProtocolError as error:
            found = [error]
        events = [event for event in found if isinstance(event, Event)]
        if refused := [each for each in found if isinstance(each, ProtocolError)]:
            where = f"from {sender_of(message.body)}, on {saferepr(message.routing_key, 100)}"
            self._refused.add(f"{where}: {refused[-1]}", len(refused))
        for event in events:
            if event.type != "task-sent":  # clients hear of nothing, so their clocks say nothing
                self._queue.clock.adjust(event.clock)
        return [event for event in events if self._wanted(event)]

    def _wanted(self, event: Event) -> bool:
        return not self._types or any(fnmatchcase(event.type, wanted) for wanted in self._types)
