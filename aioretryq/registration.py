"""From a decorated function to a task; and the tasks of libraries, which belong to no queue yet."""

from __future__ import annotations

import inspect
import os
import sys
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from aioretryq.context import current_run
from aioretryq.errors import ConfigError
from aioretryq.task import AsyncTask, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Unpack

    from aioretryq.app import TaskQueue
    from aioretryq.task_options import TaskOptions

P = ParamSpec("P")
R = TypeVar("R")


class Decorator:
    """Types of `@queue.task(...)`; never instantiated."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Any, /) -> Any: ...


class BoundDecorator:
    """Types of `@queue.task(bind=True, ...)`: the first argument is the task; never instantiated."""

    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> Task[P, R]: ...
    def __call__(self, function: Any, /) -> Any: ...


# -- tasks that belong to no queue yet

SHARED: dict[str, Task[Any, Any]] = {}
NEWEST: list[TaskQueue] = []


def current_queue() -> TaskQueue:
    """The queue of the task that is running, else the newest one."""
    run = current_run.get()
    if run is not None:
        return run.app
    if not NEWEST:
        raise ConfigError("There is no TaskQueue yet: create one before using a shared task.")
    return NEWEST[0]


@overload
def shared_task(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
@overload
def shared_task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def shared_task(*, bind: Literal[True], **options: Unpack[TaskOptions]) -> BoundDecorator: ...
@overload
def shared_task(*, bind: Literal[False] = False, **options: Unpack[TaskOptions]) -> Decorator: ...
def shared_task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Like `@queue.task`, for libraries: the task is known to every queue, and uses the current one."""

    def register(decorated: Callable[..., Any]) -> Task[Any, Any]:
        made = make_task(decorated, options, app=current_queue)
        SHARED[made.name] = made
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
        module = spec.name if spec is not None else (os.path.splitext(os.path.basename(path))[0] if path else module)
    return f"{module}.{function.__name__}"
