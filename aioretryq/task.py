"""Tasks: a function with a name, its options, and the ways to call it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, ParamSpec, TypeVar

from aioretryq.context import Request, current_run
from aioretryq.errors import MaxRetriesExceededError, Retry, did_you_mean
from aioretryq.lazy import Lazy
from aioretryq.rates import check_limits
from aioretryq.retry import RetryPolicy
from aioretryq.task_hooks import HOOKS, Hooks
from aioretryq.task_options import CHECKED, FROM_SETTINGS, OPTIONS, FromSetting, check_option, check_retry_options

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import Unpack

    from aioretryq import canvas, eager, linking, sending
    from aioretryq.app import TaskQueue
    from aioretryq.calling import CallKeywords
    from aioretryq.canvas import Signature
    from aioretryq.canvas.maps import Chunks
    from aioretryq.results.eager import EagerResult
    from aioretryq.results.result import AsyncResult
    from aioretryq.workflows import additions, places
else:
    additions = Lazy("aioretryq.workflows.additions")
    canvas = Lazy("aioretryq.canvas")
    eager = Lazy("aioretryq.eager")
    linking = Lazy("aioretryq.linking")
    places = Lazy("aioretryq.workflows.places")
    sending = Lazy("aioretryq.sending")

P = ParamSpec("P")
R = TypeVar("R")

_SHAPES = 100
"""Ways of calling a task that are remembered as right: looking one up takes 0.2 us, binding arguments 3."""


class Task(Hooks, Generic[P, R]):
    """A function and how it is to be called. Made by `@queue.task`; subclass it and pass `base=` for hooks.

    Options are attributes: what the decorator was given, else what the class says, else the default or
    setting. A task has no per-call state; the run that is going on is `self.request`.
    """

    name: str = ""
    bind: bool = False

    max_retries: int | None
    default_retry_delay: float
    autoretry_for: tuple[type[BaseException], ...]
    dont_autoretry_for: tuple[type[BaseException], ...]
    retry_kwargs: Mapping[str, Any]
    retry_backoff: bool | float
    retry_backoff_max: float
    retry_jitter: bool
    throws: tuple[type[BaseException], ...]
    queue: str | None
    exchange: str | None
    routing_key: str | None
    priority: int | None
    expires: float | datetime | None
    serializer: str | None
    compression: str | None
    shadow_name: Callable[..., str | None] | None
    trail: bool
    send_events: bool
    acks_late: bool
    dead_letter: bool | tuple[str, ...]
    max_deliveries: int
    ignore_result: bool
    store_errors_even_if_ignored: bool
    time_limit: float | None
    soft_time_limit: float | None
    rate_limit: str | float | None
    track_started: bool

    changes: int = 0
    """How often something of it was set: who has looked its options up can tell whether they still hold."""

    MaxRetriesExceededError: ClassVar[type[MaxRetriesExceededError]] = MaxRetriesExceededError

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        app: Callable[[], TaskQueue],
        bind: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.bind = bind
        self.function = function
        self.is_coroutine = inspect.iscoroutinefunction(function)
        self.parameters = inspect.signature(function)
        self._shapes: set[tuple[Any, ...]] = set()
        self._app = app
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self.__wrapped__ = function
        cls = type(self)
        inherited = {each: getattr(cls, each) for each in CHECKED if getattr(cls, each) is not OPTIONS[each]}
        for option, value in {**inherited, **(options or {})}.items():
            setattr(self, option, check_option(option, value, name))
        # Only the task's own: a setting may well be longer than the limit of one task.
        hard, soft = (getattr(type(self), each, None) for each in ("time_limit", "soft_time_limit"))
        own = vars(self)
        check_limits(own.get("time_limit", hard), own.get("soft_time_limit", soft), f"Task {name!r}")
        self.hooks = frozenset(hook for hook in HOOKS if getattr(type(self), hook) is not getattr(Task, hook))

    if not TYPE_CHECKING:  # mypy then still flags misspelt attributes

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"Task {self.name!r} has no attribute {name!r}.{did_you_mean(name, OPTIONS)}")

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        object.__setattr__(self, "changes", self.changes + 1)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def app(self) -> TaskQueue:
        """The queue this task belongs to; of a shared task, the current one."""
        return self._app()

    @property
    def limited(self) -> bool:
        """Whether its runs have a time limit, if their messages do not say otherwise."""
        return bool(self.time_limit or self.soft_time_limit)

    # -- running

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Simply call the function: no queue, no retries."""
        value: R = self.run(*args, **kwargs)
        return value

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The body. Wrap it in a subclass to do something around every run (return what `super()` returns)."""
        return self.function(self, *args, **kwargs) if self.bind else self.function(*args, **kwargs)

    @property
    def request(self) -> Request:
        """The run of this task that is going on here; outside of one, a request with `called_directly`."""
        run = current_run.get()
        return run.request if run is not None and run.task is self else Request(called_directly=True)

    # -- calling

    async def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task with these arguments. See `apply_async`."""
        return await self.apply_async(args, kwargs)

    async def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallKeywords],
    ) -> AsyncResult[R]:
        """Send the task; returns when the broker has it. Options are those of `TaskQueue.send_task`.

        Raises TypeError for arguments the function does not take, EncodeError for such that cannot be
        serialised, PublishError when the broker has not confirmed the task (`maybe_sent` says what is known).
        Cancelled, the task may or may not have been sent.
        """
        self.check_arguments(args or (), kwargs or {})
        return await sending.send(self.app, self.name, args, kwargs, task=self, options=options)

    async def delay_many(
        self,
        calls: Iterable[Sequence[Any] | Mapping[str, Any]],
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallKeywords],
    ) -> Sequence[AsyncResult[R]]:
        """Send the task once for each of `calls`: a tuple of arguments, or a dictionary of keyword arguments.

        `kwargs` and the options are those of every call; there may be any number of calls: of a generator only some
        hundred are in memory at a time. Returns their results in the same order when the broker has them all.

        Raises what `apply_async` raises, and has sent nothing then: the arguments of a list or tuple are all checked
        before the first is sent. What goes wrong later, the broker's failure or a value that cannot be serialised, is
        a PartlySent, which tells of each call. Cancelled, some may have been sent.
        """
        return await self.app.send_many(self.name, calls, kwargs, task=self, options=options)

    async def apply(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> EagerResult[R]:
        """Run the task here and now, through all its retries, without a broker.

        The waits between retries are skipped unless `sleep=anyio.sleep` is given. With `throw=True` the
        task's exception is raised.
        """
        self.check_arguments(args or (), kwargs or {})
        return await eager.apply(self, args or (), kwargs or {}, options)

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any], *, partial: bool = False) -> None:
        """TypeError, naming the task, if the function cannot be called with these; `partial`: not with any others."""
        shape = (partial, len(args), *kwargs)  # nothing else decides it
        if shape in self._shapes:
            return
        bind = self.parameters.bind_partial if partial else self.parameters.bind
        try:
            bind(*((self, *args) if self.bind else args), **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}{self.parameters} cannot be called so: {error}") from None
        if len(self._shapes) < _SHAPES:
            self._shapes.add(shape)

    # -- being called later, and in workflows

    def signature(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **options: Unpack[CallKeywords],
    ) -> Signature[R]:
        """A call to be made later: in a workflow, or as `link=`. What it follows gives it its first argument.

        `immutable` does without that. Raises ConfigError for options that no call has.
        """
        node = linking.node_of_call(self.name, args, kwargs, options, immutable=immutable)
        return canvas.Signature(node, self._app)

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """`signature` with these arguments. TypeError for such that the function does not take, whatever comes first.

        Often written as `add.s(1, 2) | mul.s(3)`: see `chain`, `group` and `chord`.
        """
        self.check_arguments(args, kwargs, partial=True)
        return self.signature(args, kwargs)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """The same, immutable: so the arguments have to be all that the function needs, or it is a TypeError."""
        self.check_arguments(args, kwargs)
        return self.signature(args, kwargs, immutable=True)

    def map(self, it: Iterable[Any]) -> Signature[list[R]]:
        """One call (`celery.map`) that runs the task for each of these, one after the other: a list of values."""
        return canvas.xmap(self.s(), it)

    def starmap(self, it: Iterable[Sequence[Any]]) -> Signature[list[R]]:
        """The same, where each is a list of arguments."""
        return canvas.xstarmap(self.s(), it)

    def chunks(self, it: Iterable[Sequence[Any]], n: int) -> Chunks[R]:
        """A group of `starmap`s, of `n` lists of arguments each."""
        return canvas.chunks(self.s(), it, n)

    def replace(self, sig: Signature[Any, Any] | Mapping[str, Any]) -> NoReturn:
        """End this run: another call, or a workflow, does its work and stores its result, and what follows, follows.

        Raises Replaced, which nothing in the task should catch; write `return self.replace(...)`.
        """
        if self.request.called_directly:
            raise RuntimeError(f"{self.name}.replace() was called outside of a run of that task.")
        node = linking.node_of(sig)
        places.check_replacement(node)
        self.on_replace(canvas.of_node(node, self._app))

    async def add_to_chord(self, sig: Signature[Any, Any] | Mapping[str, Any], lazy: bool = False) -> Any:
        """Add a call or a workflow to the header of the chord that this run is part of: its result, once it is sent.

        `lazy` returns the signature, for you to send. Its value stands beside this task's in what the body is given.
        Raises ValueError in a run that is no part of a chord.
        """
        part: Signature[Any, Any] = canvas.signature(sig, app=self._app)
        added = canvas.of_node(await additions.add_to_chord(part.node), self._app)
        return added if lazy else await added.delay()

    # -- retrying

    @property
    def retry_policy(self) -> RetryPolicy:
        """The schedule of this task's retries; `retry_policy.preview()` lists it."""
        return RetryPolicy(
            max_retries=self.retry_kwargs.get("max_retries", self.max_retries),
            delay=self.retry_kwargs.get("countdown", self.default_retry_delay),
            backoff=self.retry_backoff,
            backoff_max=self.retry_backoff_max,
            jitter=self.retry_jitter,
        )

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        *,
        throw: bool = True,
        countdown: float | None = None,
        eta: datetime | None = None,
        **options: Any,
    ) -> Retry:
        """Ask for another run of this task: raises Retry, so nothing after the call is executed.

        `countdown` (seconds) or `eta` win over the task's schedule. `max_retries=` overrides the task's for
        this decision. When no retry is left, `exc` is raised, or MaxRetriesExceededError without one.
        Called outside of a worker it raises `exc`. With `throw=False` the Retry is returned for you to raise.
        Other options: `queue`, `priority`, `expires`, `time_limit`, `soft_time_limit`, `headers`.
        """
        request = self.request
        limit = options.pop("max_retries", self.retry_policy.max_retries)
        if request.called_directly:
            raise exc or RuntimeError(f"{self.name}.retry() was called outside of a run of that task.")
        if limit is not None and request.retries >= limit:
            self._give_up(exc, limit)
        check_retry_options({**options, "countdown": countdown, "eta": eta}, f"{self.name}.retry()")
        retry = Retry(
            exc=exc,
            when=eta if eta is not None else countdown,
            args=None if args is None else tuple(args),
            kwargs=None if kwargs is None else dict(kwargs),
            max_retries=limit,
            options={name: value for name, value in options.items() if value is not None},
        )
        if throw:
            raise retry from exc
        return retry

    def _give_up(self, exc: BaseException | None, limit: int) -> NoReturn:
        if exc is not None:
            raise exc
        raise MaxRetriesExceededError(f"{self.name}[{self.request.id}] has used its {limit} retries.")

    async def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None) -> None:
        """Store a state of your own (such as PROGRESS, with `meta` as its result) for the running task."""
        if self.request.is_eager:
            return  # nothing is stored of an eager run
        await self.app.store_state(task_id or self.request.id or "", state or "PROGRESS", meta, self.request)

    def send_event(self, type_: str, **fields: Any) -> None:
        """Send an event of your own about the running task, such as `self.send_event("task-progress", percent=50)`.

        It is sent in the background, also while a worker sends no events of its own; nothing to wait for, and any
        thread may call it. EncodeError for fields that JSON cannot hold. Outside of a worker nothing is sent.
        """
        request = self.request
        if request.hostname is not None and not request.is_eager:
            self.app.connections.events.send(type_, request.hostname, {"uuid": request.id, **fields})


class AsyncTask(Task[P, R]):
    """A coroutine function's task: calling it gives an awaitable."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...  # type: ignore[override]


for _option, _default in OPTIONS.items():
    setattr(Task, _option, _default)
for _option, _setting in FROM_SETTINGS.items():
    setattr(Task, _option, FromSetting(_setting))
