"""Remote control: what others may ask of a running worker, and what they may have it do."""

from __future__ import annotations

import inspect
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from msgspec import Struct, field

from aioretryq.custom_commands import CommandState, CustomCommand
from aioretryq.errors import AioretryqError, BrokerError, ConfigError, ProtocolError, UnavailableError
from aioretryq.protocol.commands import COMMANDS
from aioretryq.protocol.control import (
    decode_request,
    encode_reply,
    form_for,
    reply_exchange,
    request_exchange,
    sender_of,
)
from aioretryq.protocol.nodes import matches
from aioretryq.protocol.saferepr import inline, saferepr
from aioretryq.worker import commands_control, commands_inspect

if TYPE_CHECKING:
    from aioretryq.app import TaskQueue
    from aioretryq.message import Broadcast
    from aioretryq.outage import Outage
    from aioretryq.protocol.control import Request
    from aioretryq.worker.events import Events
    from aioretryq.worker.executor import Executor
    from aioretryq.worker.fetcher import Fetcher
    from aioretryq.worker.jobs import Jobs
    from aioretryq.worker.revocations import Revocations
    from aioretryq.worker.worker import Worker

logger = logging.getLogger("aioretryq.worker")

AT_ONCE = 20
"""Requests that are worked on at once; the next ones wait."""

LONGEST = 60.0
"""Seconds a command of the application may take."""

REPLY_TTL = 60.0
"""Seconds for which a reply waits for a client that may be gone."""

REFUSED = 60.0
"""Seconds until listening is tried again after the broker has refused it."""

MINGLE = 2.0
"""Seconds for which a worker that starts listens to what the others have to say."""

Handler = Callable[..., Any]

BUILT_IN: dict[str, Handler] = {**commands_inspect.HANDLERS, **commands_control.HANDLERS}
HANDLERS: dict[str, Handler] = {
    **BUILT_IN,
    **{command.alias: BUILT_IN[command.name] for command in COMMANDS if command.alias is not None},
}


class Pieces(Struct, frozen=True):
    """A running worker, as commands see it."""

    worker: Worker
    jobs: Jobs
    fetcher: Fetcher
    revocations: Revocations
    executor: Executor
    events: Events
    outage: Outage
    samples: deque[str] = field(default_factory=lambda: deque(maxlen=100))  # of memory
    began: float = field(default_factory=time.monotonic)

    def uptime(self) -> float:
        return time.monotonic() - self.began


class Call(Struct, frozen=True):
    """One request, as its command sees it."""

    pieces: Pieces
    request: Request

    @property
    def queue(self) -> TaskQueue:
        return self.pieces.worker.queue

    @property
    def node(self) -> str:
        return self.pieces.worker.name

    def log(self, what: str) -> None:
        """Who has this worker do something."""
        self.pieces.executor.repeated.log(
            logging.INFO, "commands by remote control", "By remote control: %s (%s)", what, self.request.origin
        )


class Control:
    """Hears requests, does what they ask and answers. Nothing that anybody sends ends it."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._node = pieces.worker.name
        self._conf = pieces.worker.queue.conf
        self._form = form_for(self._conf)
        self._bus = pieces.worker.queue.broker.bus()
        self._repeated = pieces.executor.repeated
        self._room = anyio.CapacityLimiter(AT_ONCE)
        self.listening = anyio.Event()

    async def run(self) -> None:
        """Listen and answer; until cancelled."""
        if not self._conf.worker_enable_remote_control:
            self.listening.set()
            return
        async with anyio.create_task_group() as group:
            group.start_soon(self._mingle)
            while True:
                try:
                    await self._pieces.outage.survive(lambda: self._listen(group))
                except BrokerError as error:
                    logger.error("There is no remote control, trying again in %.0f s: %s", REFUSED, error)
                    await anyio.sleep(REFUSED)

    async def _listen(self, group: anyio.abc.TaskGroup) -> None:
        # No routing key, as in Celery: a pattern would keep Redis from telling whether anybody hears of a result.
        async with self._bus.listen(request_exchange(self._conf.control_exchange), "") as ear:
            self.listening.set()
            while True:
                for message in await ear.receive():
                    await self._hear(message, group)

    async def _hear(self, message: Broadcast, group: anyio.abc.TaskGroup) -> None:
        try:
            request = self._read(message.body)
        except Exception as error:
            # A mistake of ours, which must not end the worker: whoever can publish reaches all of them.
            if self._repeated.admits("tracebacks of requests"):
                logger.exception("A request to remote control cannot be read")
            self._ignored("requests that failed", "Ignored a request to remote control: %s", message.body, error)
            return
        if request is None:
            return
        # One who floods waits here; reading goes on when there is room again.
        token = object()
        await self._room.acquire_on_behalf_of(token)
        group.start_soon(self._serve, request, token)

    def _read(self, body: bytes) -> Request | None:
        """The request, if it is one and for this node."""
        try:
            request = decode_request(body, self._form)
            wanted = self._means_me(request)
            if request.reply_to is not None and request.reply_to.exchange != self._reply_exchange:
                # Else a reply could be put into any queue there is.
                raise ProtocolError(f"Replies go to the exchange {self._reply_exchange}, not {request.reply_to}.")
        except (ProtocolError, ConfigError) as error:
            self._ignored("requests that cannot be used", "Ignored a request to remote control: %s", body, error)
            return None
        self._pieces.worker.queue.clock.adjust(request.clock)
        if request.stale:
            self._ignored(
                "stale requests", "Ignored a request to remote control that is long over: %s", body, request
            )
            return None
        return request if wanted else None

    @property
    def _reply_exchange(self) -> str:
        return reply_exchange(self._conf.control_exchange)

    def _means_me(self, request: Request) -> bool:
        if request.destination is not None:
            return self._node in request.destination
        return request.pattern is None or matches(self._node, request.pattern, request.matcher)

    def _ignored(self, kind: str, text: str, body: bytes, why: object) -> None:
        self._repeated.log(logging.WARNING, kind, f"{text} (sent by %s)", saferepr(str(why), 400), sender_of(body))

    # -- answering

    async def _serve(self, request: Request, token: object) -> None:
        try:
            reply = await self._carry_out(request)
            if request.reply_to is not None:
                clock = self._pieces.worker.queue.clock.forward()
                answer = encode_reply(self._node, reply, request, clock, self._form)
                await self._bus.answer(answer, ttl=REPLY_TTL)
        except AioretryqError as error:
            text = "A reply to %s, asked by %s, was not sent: %s"
            self._repeated.log(
                logging.WARNING, "replies that were not sent", text, inline(request.method), request.origin, error
            )
        except Exception:
            # As in `_hear`.
            if self._repeated.admits("tracebacks of requests"):
                logger.exception("No reply to %s, asked by %s", inline(request.method), request.origin)
        finally:
            self._room.release_on_behalf_of(token)

    async def _carry_out(self, request: Request) -> Any:
        custom = self._pieces.worker.queue.commands.found.get(request.method)
        handler = HANDLERS.get(request.method)
        if custom is None and handler is None:
            return self._failed(request, KeyError(request.method))
        try:
            if custom is not None:
                return await self._do_custom(custom, request.arguments)
            assert handler is not None
            found = handler(Call(self._pieces, request), **_known(handler, request.arguments))
            return await found if inspect.isawaitable(found) else found
        except Exception as error:
            # Whatever it is: a request must not end the worker. Wrong arguments are the sender's mistake, not ours.
            ours = custom is not None or not isinstance(error, TypeError | ValueError | AioretryqError)
            if ours and self._repeated.admits("tracebacks of commands"):
                logger.exception("The command %s has failed", saferepr(request.method, 80))
            return self._failed(request, error)

    def _failed(self, request: Request, error: Exception) -> dict[str, str]:
        text, method = saferepr(error, 1000), saferepr(request.method, 80)
        self._repeated.log(
            logging.WARNING,
            "commands that failed",
            "The command %s, asked by %s, has failed: %s",
            method,
            request.origin,
            text,
        )
        return {"error": text}

    async def _do_custom(self, custom: CustomCommand, arguments: dict[str, Any]) -> Any:
        worker, function = self._pieces.worker, custom.function
        state = CommandState(worker.queue, self._node, worker)
        known = _known(function, arguments)
        with anyio.fail_after(LONGEST):
            if inspect.iscoroutinefunction(function):
                return await function(state, **known)
            return await anyio.to_thread.run_sync(lambda: function(state, **known), abandon_on_cancel=True)

    # -- the others

    async def _mingle(self) -> None:
        """Ask which tasks are revoked: workers of Celery know some that nobody has written down."""
        revocations = self._pieces.revocations
        inspected = self._pieces.worker.queue.control.inspect(timeout=MINGLE)
        try:
            replies = await inspected.hello(self._node, revocations.ids())
        except (UnavailableError, BrokerError) as error:
            logger.info("The other workers were not asked which tasks are revoked: %s", error)
            return
        for reply in replies.values():
            if isinstance(reply, dict):
                revocations.merge(reply.get("revoked"))


def _known(handler: Handler, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those arguments that it takes; newer clients may send more."""
    parameters = list(inspect.signature(handler).parameters.values())
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return arguments
    names = {parameter.name for parameter in parameters[1:]}
    return {name: value for name, value in arguments.items() if name in names}
