"""What an open queue has: a broker, results, and one task for the loops that run in the background."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio

from aioretryq.backends import create_backend
from aioretryq.backends.consumer import ResultConsumer
from aioretryq.backends.store import ResultStore
from aioretryq.brokers import create_broker
from aioretryq.events.sending import EventSender
from aioretryq.exchanging import Exchanging
from aioretryq.plain_calls import PlainCalls
from aioretryq.protocol.formats import check_message_formats
from aioretryq.publishing import Publisher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.brokers.base import Broker
    from aioretryq.config import Settings
    from aioretryq.message import Outgoing, TaskMessage
    from aioretryq.protocol.clock import Clock
    from aioretryq.publishing import Terms

logger = logging.getLogger("aioretryq")

LAST_EVENTS = 1.0
"""Seconds that closing waits for events which have not been sent yet."""


class Connections:
    """What an open queue has: broker, results, and one service task for its background loops.

    The loops live in a task of their own, not in a task group entered by `__aenter__`: frameworks and test
    fixtures open and close a queue in different tasks, which a task group does not allow.
    """

    def __init__(
        self, broker: Broker, results: ResultStore, settings: Settings, clock: Clock, stack: AsyncExitStack
    ) -> None:
        self.broker = broker
        self.results = results
        self._settings = settings
        self.events = EventSender(broker.bus(), broker.display_url, settings, clock)
        self.exchanges = Exchanging(broker, settings)
        self.publisher = Publisher(self._send, broker.display_url)
        self.calls = PlainCalls(settings)
        self.consumer = ResultConsumer(results.backend, poll_interval=settings.result_poll_interval)
        self.loop = asyncio.get_running_loop()
        self._stack = stack
        self._service = asyncio.create_task(self._serve(), name="aioretryq-service")

    @classmethod
    async def open(cls, broker_url: str, backend_url: str, settings: Settings, clock: Clock) -> Connections:
        """Connect to both, or to none: what was opened is closed when the other fails."""
        check_message_formats(settings)
        broker = create_broker(broker_url, settings)
        backend = create_backend(backend_url, settings)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(broker)
            await stack.enter_async_context(backend)
            results = ResultStore(backend, settings)
            opened = stack.pop_all()
        return cls(broker, results, settings, clock, opened)

    async def publish(self, message: TaskMessage, packed: Outgoing, terms: Terms) -> None:
        """As `Publisher.publish`, and tell those who watch."""
        await self.publisher.publish(packed, f"Task {message.task}[{message.id}]", terms)
        if self._settings.task_send_sent_event:
            self.events.sent(message)

    async def close(self) -> None:
        """Stop the loops, then disconnect; whoever still waits gets NotOpenError."""
        try:
            await self.events.flush(LAST_EVENTS)
            self._service.cancel()
            await asyncio.wait([self._service])
        finally:
            self._service.cancel()
            with anyio.CancelScope(shield=True):
                await self._stack.aclose()

    async def _serve(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self.publisher.run)
                group.start_soon(self.consumer.run)
                group.start_soon(self.events.run)
        except Exception:
            # A bug, not an outage: outages are retried inside. Waiters have been told by the loops themselves.
            logger.critical("The queue's background service has failed; close and open it again", exc_info=True)
            raise

    async def _send(self, messages: Sequence[Outgoing]) -> None:
        if self.exchanges.concerns(messages):
            messages = await self.exchanges.ready(messages)
        await self.broker.send(messages)
