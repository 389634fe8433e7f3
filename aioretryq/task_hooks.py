"""Hooks of a task: what a subclass may do around each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from aioretryq.errors import Replaced

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

    from aioretryq.canvas import Signature
    from aioretryq.execution import ExceptionInfo

HOOKS = ("before_start", "on_success", "on_retry", "on_failure", "after_return")


class _Done:
    """What a hook that does nothing returns: may be awaited, need not be."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


DONE = _Done()


class Hooks:
    """Each may be plain or async; errors in them are logged and change nothing."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> Awaitable[None]:
        """Called before each attempt."""
        return DONE

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> Awaitable[None]:
        return DONE

    def on_retry(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo | None
    ) -> Awaitable[None]:
        """Called for each attempt that will be tried again."""
        return DONE

    def on_failure(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo | None
    ) -> Awaitable[None]:
        """Called once, when no retry is left."""
        return DONE

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo | None
    ) -> Awaitable[None]:
        """Called after each attempt, whatever came of it."""
        return DONE

    def on_replace(self, sig: Signature[Any, Any]) -> NoReturn:
        """Called by `replace`, a part of the run: `return super().on_replace(sig)`, or with another signature.

        What it raises, the run raises.
        """
        raise Replaced(sig.node)
