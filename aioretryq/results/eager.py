"""Results of what has run in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from aioretryq import states
from aioretryq.protocol.result import ResultDocument
from aioretryq.results.result import AsyncResult, Update
from aioretryq.results.tree import ancestors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from aioretryq.context import Request
    from aioretryq.results.group import GroupResult

R = TypeVar("R")


class EagerResult(AsyncResult[R]):
    """The result of a task that has run in place: always ready, nothing is stored."""

    def __init__(self, task_id: str | None, status: str, value: Any, traceback: str | None, request: Request) -> None:
        self.id = task_id or ""
        self.parent = None
        self.ignored = False
        self.request = request
        self.sent: list[AsyncResult[Any] | GroupResult[Any]] = []
        self._document = ResultDocument(
            task_id=self.id,
            status=status,
            result=None,
            traceback=traceback,
            name=request.task,
            args=request.args,
            kwargs=request.kwargs,
            retries=request.retries,
        )
        self._eager_value = value

    def __repr__(self) -> str:
        return f"<EagerResult {self.id} {self._document.status}>"

    async def get(self, timeout: float | None = None, *, propagate: bool = True, follow_parents: bool = True) -> Any:
        if propagate and follow_parents:
            for before in ancestors(self):
                await before.get(follow_parents=False)
        if propagate and self._document.status in states.PROPAGATED:
            raise self._eager_value
        return self._eager_value

    async def updates(self) -> AsyncIterator[Update]:
        yield Update(self._document.status, self._eager_value)

    async def children(self) -> list[AsyncResult[Any] | GroupResult[Any]]:
        return self.sent

    async def _meta(self) -> ResultDocument:
        return self._document

    def _at_hand(self) -> tuple[str, Any]:
        return self._document.status, self._eager_value

    async def _children_if_done(self) -> list[AsyncResult[Any] | GroupResult[Any]]:
        return self.sent

    def _leaf_ids(self) -> Iterable[str]:
        """Those that can be asked for elsewhere."""
        return ()

    async def result(self) -> Any:
        return self._eager_value

    async def finished(self) -> None:
        """It is."""

    async def exists(self) -> bool:
        return False

    async def forget(self) -> None:
        """Nothing is stored."""

    async def revoke(self, **options: Any) -> None:
        """It has run already."""

    async def cancel(self) -> None:
        """It has run already."""
