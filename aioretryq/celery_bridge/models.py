"""`@app.task(pydantic=True)` of coroutines: Celery dumps what is returned, which is the coroutine for it."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Wrap = Callable[..., Callable[..., Any]]


def with_coroutines(wrap: Wrap) -> Wrap:
    """Celery's wrapper of tasks with models, which imports pydantic, made to dump what coroutines return."""

    @functools.wraps(wrap)
    def wrap_both(app: Any, body: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
        wrapped = wrap(app, body, *args, **kwargs)
        if not inspect.iscoroutinefunction(body):
            return wrapped
        dump = wrap(app, _returns_what_it_is_given(body), *args, **kwargs)

        @functools.wraps(wrapped)
        async def run(*task_args: Any, **task_kwargs: Any) -> Any:
            return dump(await wrapped(*task_args, **task_kwargs))

        return run

    return wrap_both


def _returns_what_it_is_given(body: Callable[..., Any]) -> Callable[[Any], Any]:
    """A plain function for Celery to wrap, that promises to return what `body` does."""

    @functools.wraps(body)  # names in annotations are looked up in the module of `body`
    def identity(value: Any) -> Any:
        return value

    promised = {name: hint for name, hint in body.__annotations__.items() if name == "return"}
    identity.__annotations__ = promised
    answer = promised.get("return", inspect.Signature.empty)
    parameter = inspect.Parameter("value", inspect.Parameter.POSITIONAL_ONLY)
    vars(identity)["__signature__"] = inspect.Signature([parameter], return_annotation=answer)
    return identity
