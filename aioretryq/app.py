"""TaskQueue: what a user writes against. Holds tasks and settings, and while open the connections."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
import sys
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar, overload
from uuid import uuid4

from aioretryq import eager, states
from aioretryq.backends.disabled import DisabledBackend
from aioretryq.calling import CallOptions, compose
from aioretryq.config import DEFAULT_URL, Settings
from aioretryq.connections import Connections
from aioretryq.context import current_run
from aioretryq.dead import DeadLetters
from aioretryq.errors import (
    ConfigError,
    NotOpenError,
    NotRegistered,
    PayloadTooLarge,
    TaskRevokedError,
    did_you_mean,
)
from aioretryq.message import Outgoing, TaskMessage, revocation
from aioretryq.protocol.exceptions import exception_to_data
from aioretryq.protocol.result import ResultDocument
from aioretryq.protocol.task import encode_task, format_moment
from aioretryq.publishing import Terms
from aioretryq.result import AsyncResult
from aioretryq.routing import check_routes
from aioretryq.task import AsyncTask, Task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
    from types import TracebackType

    from aioretryq.backends.consumer import Watch
    from aioretryq.backends.store import ResultStore
    from aioretryq.brokers.base import Broker
    from aioretryq.context import Request

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("aioretryq")

REVOCATION_TTL = 24 * 3600.0
"""Seconds a revocation is remembered: longer than anything usually waits in a queue."""


class TaskQueue:
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
        _newest[:] = [self]

    def __repr__(self) -> str:
        return f"<TaskQueue with {len(self.tasks)} tasks>"

    # -- configuration

    @property
    def broker_url(self) -> str:
        return self.conf.broker_url or DEFAULT_URL

    @property
    def backend_url(self) -> str:
        return self.conf.result_backend or self.broker_url

    def config_from_object(self, source: object) -> None:
        """Settings from a mapping, object, module, or the import path of one; see `Settings.load`."""
        self.conf.load(source)

    # -- tasks

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        """Tasks by name, shared ones included."""
        return {**_shared, **self._tasks}

    def find_task(self, name: str) -> Task[Any, Any]:
        """The task of that name, or NotRegistered with the closest name."""
        found = self._tasks.get(name) or _shared.get(name)
        if found is None:
            raise NotRegistered(f"There is no task {name!r} here.{did_you_mean(name, self.tasks)}")
        return found

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, /, *, bind: Literal[True], **options: Any) -> _BoundDecorator: ...
    @overload
    def task(self, /, **options: Any) -> _Decorator: ...
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

    # -- calling

    async def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send a task by name; it need not be defined here.

        Options: countdown or eta, expires, queue, priority, task_id, headers, ignore_result, serializer,
        shadow, time_limit, soft_time_limit, retry, retry_policy, timeout, wait, reply_to, root_id, parent_id.

        Raises PublishError when the broker has not confirmed it after the retries of `retry_policy`; with
        `wait=seconds` only after waiting that long in addition for a broker that is gone. All of it ends after
        `timeout` seconds, or `timeout` and `wait` together.
        """
        return await self.send(name, args, kwargs, task=None, options=options)

    async def send(
        self,
        name: str,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        *,
        task: Task[Any, Any] | None,
        options: Mapping[str, Any],
    ) -> AsyncResult[Any]:
        """What `send_task` and `apply_async` share."""
        call = CallOptions.of(options, name)
        if self.conf.task_always_eager:
            return await eager.apply(
                task or self.find_task(name),
                args or (),
                kwargs or {},
                {"task_id": call.task_id, "headers": call.headers},
            )
        check_routes(self.conf.task_routes)
        run = current_run.get()
        caller = run.request if run is not None else None
        message = compose(
            name, (args or (), kwargs or {}), call, task=task, settings=self.conf, caller=caller, now=time.time()
        )
        await self._publish(message, call)
        result: AsyncResult[Any] = AsyncResult(message.id, self)
        result.ignored = bool(message.ignore_result)
        result.just_sent = True
        if caller is not None and run is not None and run.task.trail:
            caller.children.append(result.as_tuple())
        return result

    async def _publish(self, message: TaskMessage, call: CallOptions) -> None:
        tag = str(uuid4())
        payload = encode_task(message, tag=tag)
        limit = self.conf.max_payload_bytes
        what = f"Task {message.task}[{message.id}]"
        if len(payload) > limit:
            raise PayloadTooLarge(
                f"{what} was not sent: its message has {len(payload):,} bytes, max_payload_bytes is {limit:,}. "
                "Store large data elsewhere and pass its key."
            )
        outgoing = Outgoing(message.routing_key, payload, tag, message.priority)
        await self.connections.publisher.publish(outgoing, what, Terms.of(call, self.conf))

    # -- results

    def AsyncResult(self, task_id: str) -> AsyncResult[Any]:
        """The result of a task that was sent earlier, from anywhere."""
        return AsyncResult(task_id, self)

    async def revoke(self, task_id: str, *, terminate: bool = False) -> None:
        """See `AsyncResult.revoke`."""
        await self.connections.broker.revoke([revocation(task_id, terminate=terminate)], ttl=REVOCATION_TTL)
        if isinstance(self.results.backend, DisabledBackend):
            return
        if not terminate and (await self.results.get_task_meta(task_id)).status == states.STARTED:
            return
        document = ResultDocument(
            task_id=task_id,
            status=states.REVOKED,
            result=exception_to_data(TaskRevokedError("terminated" if terminate else "revoked")),
            date_done=format_moment(time.time()),
        )
        await self.results.store([self.results.record(document)])

    async def store_state(self, task_id: str, state: str, meta: Any, request: Request) -> None:
        """Store a state that is not final; see `Task.update_state`."""
        document = ResultDocument(task_id=task_id, status=state, result=meta, children=request.children)
        await self.results.store([self.results.record(document)])

    @property
    def results(self) -> ResultStore:
        return self.connections.results

    @contextmanager
    def watch(self, task_id: str, *, just_sent: bool = False) -> Iterator[Watch]:
        """See the documents of a task's result as they come."""
        if isinstance(self.results.backend, DisabledBackend):
            self.results.backend.listen()  # raises, and says what to set
        with self.connections.consumer.watch(task_id, just_sent=just_sent) as watch:
            yield watch

    @property
    def dead_letters(self) -> DeadLetters:
        """What could not be processed: look at it, replay it, purge it."""
        return DeadLetters(self)

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
                self._open = await Connections.open(self.broker_url, self.backend_url, self.conf)
            self._entered += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._entered -= 1
        if self._entered == 0 and self._open is not None:
            connections, self._open = self._open, None
            self._opening = asyncio.Lock()  # the next opening may be on another event loop
            await connections.close()


class _Decorator:
    """Types of `@queue.task(...)`; never instantiated."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Any, /) -> Any: ...


class _BoundDecorator:
    """Types of `@queue.task(bind=True, ...)`: the first argument is the task; never instantiated."""

    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> Task[P, R]: ...
    def __call__(self, function: Any, /) -> Any: ...


# -- tasks that belong to no queue yet

_shared: dict[str, Task[Any, Any]] = {}
_newest: list[TaskQueue] = []


def current_queue() -> TaskQueue:
    """The queue of the task that is running, else the newest one."""
    run = current_run.get()
    if run is not None:
        return run.app
    if not _newest:
        raise ConfigError("There is no TaskQueue yet: create one before using a shared task.")
    return _newest[0]


@overload
def shared_task(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
@overload
def shared_task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def shared_task(*, bind: Literal[True], **options: Any) -> _BoundDecorator: ...
@overload
def shared_task(**options: Any) -> _Decorator: ...
def shared_task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Like `@queue.task`, for libraries: the task is known to every queue, and uses the current one."""

    def register(decorated: Callable[..., Any]) -> Task[Any, Any]:
        made = make_task(decorated, options, app=current_queue)
        _shared[made.name] = made
        return made

    return register if function is None else register(function)


def make_task(
    function: Callable[..., Any], options: Mapping[str, Any], *, app: Callable[[], TaskQueue]
) -> Task[Any, Any]:
    given = dict(options)
    if isinstance(function, Task) or not callable(function):
        raise ConfigError(f"A task is made of a function, not of {function!r}.")
    base = given.pop("base", None)
    name = given.pop("name", None) or task_name(function)
    bind = given.pop("bind", False)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigError(f"Task {name!r} is a generator; return a list, or send what it yields as tasks.")
    if base is not None and not (isinstance(base, type) and issubclass(base, Task)):
        raise ConfigError(f"Task {name!r}: base must be a subclass of aioretryq.Task, not {base!r}.")
    cls = base or (AsyncTask if inspect.iscoroutinefunction(function) else Task)
    return cls(function, name, app=app, bind=bind, options=given)


def task_name(function: Callable[..., Any]) -> str:
    """`module.function`; a module that was started as a program goes by its import name or file name."""
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, path = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec is not None else (Path(path).stem if path else module)
    return f"{module}.{function.__name__}"
