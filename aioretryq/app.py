"""TaskQueue: what a user writes against. Holds tasks and settings, and while open the connections."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, overload

from aioretryq.backends.disabled import DisabledBackend
from aioretryq.composing import Composing
from aioretryq.config import DEFAULT_URL, Settings
from aioretryq.errors import (
    NotOpenError,
    NotRegistered,
    did_you_mean,
)
from aioretryq.lazy import Lazy
from aioretryq.protocol.clock import Clock
from aioretryq.registration import NEWEST, SHARED, BoundDecorator, Decorator, make_task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Unpack

    from aioretryq import (
        connections,
        control,
        custom_commands,
        dead,
        sending,
        sending_many,
    )
    from aioretryq.backends.store import ResultStore
    from aioretryq.backends.watches import Watch
    from aioretryq.brokers.base import Broker
    from aioretryq.calling import CallKeywords
    from aioretryq.celery_settings import translation
    from aioretryq.connections import Connections
    from aioretryq.context import Request
    from aioretryq.control import RemoteControl
    from aioretryq.custom_commands import Commands
    from aioretryq.dead import DeadLetters
    from aioretryq.events import receiving
    from aioretryq.events.receiving import EventReceiver
    from aioretryq.message import TaskMessage
    from aioretryq.protocol import result as result_codec
    from aioretryq.protocol import security, usual
    from aioretryq.results import group, result
    from aioretryq.results.group import GroupResult
    from aioretryq.results.result import AsyncResult
    from aioretryq.task import AsyncTask, Task
    from aioretryq.task_options import TaskOptions
    from aioretryq.workflows import builtin
else:
    # What only an open queue needs, and what most programs never do: who defines tasks does not wait for it.
    builtin = Lazy("aioretryq.workflows.builtin")
    connections = Lazy("aioretryq.connections")
    control = Lazy("aioretryq.control")
    custom_commands = Lazy("aioretryq.custom_commands")
    dead = Lazy("aioretryq.dead")
    group = Lazy("aioretryq.results.group")
    receiving = Lazy("aioretryq.events.receiving")
    result = Lazy("aioretryq.results.result")
    result_codec = Lazy("aioretryq.protocol.result")
    security = Lazy("aioretryq.protocol.security")
    usual = Lazy("aioretryq.protocol.usual")
    sending = Lazy("aioretryq.sending")
    sending_many = Lazy("aioretryq.sending_many")
    translation = Lazy("aioretryq.celery_settings.translation")

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound="Callable[..., Any]")

logger = logging.getLogger("aioretryq")


class TaskQueue(Composing):
    """A queue of tasks: define them with `@queue.task`, open it with `async with queue:`, then `await` calls.

    `url` is the broker; without it the environment's `AIORETRYQ_URL`, else an SQLite file in the current
    folder. `backend` is the result backend, by default the same place. Further keywords are settings.
    """

    def __init__(self, url: str | None = None, *, backend: str | None = None, **settings: Any) -> None:
        self.conf = Settings.from_environment(os.environ)
        if url is not None:
            self.conf.broker_url = url
        if backend is not None:
            self.conf.result_backend = backend
        self.conf.update(settings)
        self._tasks: dict[str, Task[Any, Any]] = {}
        self._lifespans: list[Callable[[], AbstractAsyncContextManager[None]]] = []
        self._open: Connections | None = None
        self._entered = 0
        self._opening = asyncio.Lock()
        self.clock = Clock()
        NEWEST[:] = [self]

    def __repr__(self) -> str:
        return f"<TaskQueue with {len(self.tasks)} tasks>"

    # -- configuration

    @property
    def broker_url(self) -> str:
        return self.conf.broker_url or DEFAULT_URL

    @property
    def backend_url(self) -> str:
        return self.conf.result_backend or self.broker_url

    @classmethod
    def from_celery(
        cls, source: object, *, namespace: str = "CELERY", ignore: Iterable[str] = (), **overrides: Any
    ) -> Self:
        """A queue configured like a Celery application: `from_celery(app)`.

        `source` is the application, the module or mapping that configures one (new names, old ones, or Django's
        with `namespace`), or the import path of either. What was set there is taken where it means something here;
        what has no effect is listed in one warning; ConfigError lists what would make this another system.
        `overrides` are keywords of TaskQueue and win; `ignore` names settings to leave out. Unset, `task_acks_late`
        has its default here (true), and the result backend is `disabled`, as it is in Celery.
        """
        return cls(
            **translation.settings_from_celery(
                source, namespace=namespace, ignore=ignore, overrides=overrides, environ=os.environ
            )
        )

    def config_from_object(self, source: object) -> None:
        """Settings from a mapping, object, module, or the import path of one; see `Settings.load`."""
        self.conf.load(source)

    # -- tasks

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        """Tasks by name, shared ones included."""
        return {**SHARED, **self._tasks}

    def find_task(self, name: str) -> Task[Any, Any]:
        """The task of that name, or NotRegistered with the closest name."""
        found = self._tasks.get(name) or SHARED.get(name) or builtin.BUILTIN.get(name)
        if found is None:
            raise NotRegistered(f"There is no task {name!r} here.{did_you_mean(name, self.tasks)}")
        return found

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, /, *, bind: Literal[True], **options: Unpack[TaskOptions]) -> BoundDecorator: ...
    @overload
    def task(self, /, *, bind: Literal[False] = False, **options: Unpack[TaskOptions]) -> Decorator: ...
    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a task of a function: `@queue.task`, or `@queue.task(max_retries=5, ...)`.

        `bind=True` passes the task as first argument, `name=` sets the name, `base=` is a Task subclass with
        hooks; everything else is an option by Celery's name (`Task` lists them).
        """
        if function is None:
            return functools.partial(self._register, options=options)
        return self._register(function, options={})

    def _register(self, function: Callable[..., Any], *, options: dict[str, Any]) -> Task[Any, Any]:
        made = make_task(function, options, app=lambda: self)
        other = self._tasks.get(made.name)
        if other is not None and other.function.__code__ is not function.__code__:
            logger.warning("Two functions are registered as task %r; the later one is used", made.name)
        self._tasks[made.name] = made
        return made

    def lifespan(self, function: Callable[[], AsyncIterator[None]]) -> Callable[[], AsyncIterator[None]]:
        """Around the life of each worker: an async generator with one `yield`, as in FastAPI.

        What is before the `yield` runs before the first task, on the event loop of the tasks; what is after it
        when the last task is done. May be used several times; the last one opened is the first one closed.
        """
        self._lifespans.append(asynccontextmanager(function))
        return function

    @asynccontextmanager
    async def worker_resources(self) -> AsyncIterator[None]:
        """Everything registered with `lifespan`, open."""
        async with AsyncExitStack() as stack:
            for enter in self._lifespans:
                await stack.enter_async_context(enter())
            yield

    def decode(self, payload: bytes) -> TaskMessage:
        """The task in a message, if the settings accept it; ProtocolError."""
        conf = self.conf
        return usual.decode(
            payload,
            accept_content=conf.accept_content,
            max_size=conf.max_payload_bytes,
            security=security.security_for(conf),
        )

    # -- calling

    async def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallKeywords],
    ) -> AsyncResult[Any]:
        """Send a task by name; it need not be defined here.

        Options: countdown or eta, expires, queue, priority, task_id, headers, ignore_result, serializer, compression,
        shadow, time_limit, soft_time_limit, retry, retry_policy, timeout, wait, reply_to, root_id, parent_id, and
        what follows: link, link_error, chain (tasks, or signatures as dictionaries), chord.

        Raises ConfigError for options that cannot be, and for such of what follows.
        Raises PublishError when the broker has not confirmed it after the retries of `retry_policy`; with
        `wait=seconds` only after waiting that long in addition for a broker that is gone. All of it ends after
        `timeout` seconds, or `timeout` and `wait` together.
        """
        return await sending.send(self, name, args, kwargs, task=None, options=options)

    async def send_many(
        self,
        name: str,
        calls: Iterable[Sequence[Any] | Mapping[str, Any]],
        kwargs: Mapping[str, Any] | None = None,
        *,
        task: Task[Any, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Sequence[AsyncResult[Any]]:
        """`Task.delay_many` of a task by its name; `options` are those of `send_task`."""
        return await sending_many.send_many(self, name, calls, kwargs, task=task, options=options or {})

    # -- results

    def result_from_tuple(self, data: Any) -> AsyncResult[Any] | GroupResult[Any]:
        """The result, or group of results, that `as_tuple` has described."""
        return group.result_from_tuple(data, self)

    def AsyncResult(self, task_id: str) -> AsyncResult[Any]:
        """The result of a task that was sent earlier, from anywhere."""
        return result.AsyncResult(task_id, self)

    async def revoke(self, task_id: str, *, terminate: bool = False) -> None:
        """See `AsyncResult.revoke`."""
        await self.control.revoke(task_id, terminate=terminate, reply=False)

    @property
    def control(self) -> RemoteControl:
        """Ask running workers, of both kinds, and tell them what to do."""
        return control.RemoteControl(self)

    @functools.cached_property
    def commands(self) -> Commands:
        """What `control_command` and `inspect_command` have added."""
        return custom_commands.Commands()

    @overload
    def control_command(self, function: F, /) -> F: ...
    @overload
    def control_command(self, /, **options: Any) -> Callable[[F], F]: ...
    def control_command(self, function: Any = None, /, **options: Any) -> Any:
        """Add a command that changes something to the remote control of this queue's workers.

        `@queue.control_command` or `@queue.control_command(name=, args=[("n", int)], variadic=, signature=, help=)`
        on a plain (run in a thread) or async function of a `CommandState` and the arguments. What it returns is the
        reply; `{"ok": ...}` and `{"error": ...}` are shown as such.
        """
        return self.commands.decorator("control", function, options)

    @overload
    def inspect_command(self, function: F, /) -> F: ...
    @overload
    def inspect_command(self, /, **options: Any) -> Callable[[F], F]: ...
    def inspect_command(self, function: Any = None, /, **options: Any) -> Any:
        """As `control_command`, for a question."""
        return self.commands.decorator("inspect", function, options)

    async def store_state(self, task_id: str, state: str, meta: Any, request: Request) -> None:
        """Store a state that is not final; see `Task.update_state`."""
        document = result_codec.ResultDocument(task_id=task_id, status=state, result=meta, children=request.children)
        await self.results.store([self.results.record(document)])

    @property
    def results(self) -> ResultStore:
        return self.connections.results

    @property
    def results_at(self) -> str | None:
        """Where results are kept, for people; None if they are dropped."""
        backend = self.results.backend
        return None if isinstance(backend, DisabledBackend) else backend.display_url

    def watch(self, task_id: str, *, just_sent: bool = False) -> Watch:
        """See the documents of a task's result as they come: `with queue.watch(task_id) as watch`."""
        connections = self.connections
        if isinstance(connections.results.backend, DisabledBackend):
            connections.results.backend.listen()  # raises, and says what to set
        return connections.consumer.watch(task_id, just_sent=just_sent)

    def events(self, *types: str) -> EventReceiver:
        """Watch what workers and clients, of this kind and Celery's, tell of themselves and their tasks:

            async with queue.events("task-*") as events:
                async for event in events:
                    print(event.type, event.uuid, event.fields)

        `types` are globs; without any everything is heard. Workers tell of tasks with `-E`, clients with
        `task_send_sent_event`.
        """
        return receiving.EventReceiver(self, types)

    @property
    def dead_letters(self) -> DeadLetters:
        """What could not be processed: look at it, replay it, purge it."""
        return dead.DeadLetters(self)

    # -- opening and closing

    @property
    def broker(self) -> Broker:
        return self.connections.broker

    @property
    def connections(self) -> Connections:
        if self._open is None or self._open.loop.is_closed():
            raise NotOpenError(
                "The queue is not open: use `async with queue:` around what sends tasks or waits for results "
                "(in FastAPI: in the lifespan)."
            )
        return self._open

    def _forget_finished_loop(self) -> None:
        # What its loop has not closed cannot be used, nor be closed any more.
        if self._open is not None and self._open.loop.is_closed():
            logger.warning(
                "The queue was left open by an event loop that has finished; it is opened anew. "
                "Leave `async with queue:` before the loop ends."
            )
            self._open, self._entered, self._opening = None, 0, asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Connect. May be nested, and entered by several tasks; the last exit closes."""
        self._forget_finished_loop()
        async with self._opening:
            if self._entered == 0:
                self._open = await connections.Connections.open(
                    self.broker_url, self.backend_url, self.conf, self.clock
                )
            self._entered += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._entered -= 1
        if self._entered == 0 and self._open is not None:
            opened, self._open = self._open, None
            self._opening = asyncio.Lock()  # the next opening may be on another event loop
            await opened.close()
