"""What a queue does with its result backend: documents instead of bytes, retries, and a cache.

Two retry layers, as in Celery (celery/backends/base.py and redis.py):

- `ensure`: every write is tried again by `retry_policy` while the server cannot be reached.
- `result_backend_always_retry`: storing and reading are tried again with exponential backoff and full
  jitter on errors that `exception_safe_to_retry`, then end in BackendStoreError or BackendGetMetaError.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from aioretryq import states
from aioretryq.errors import (
    AioretryqError,
    BackendGetMetaError,
    BackendStoreError,
    BackendUnavailable,
    ConfigError,
)
from aioretryq.message import StoredResult
from aioretryq.protocol.formats import result_format
from aioretryq.protocol.result import ResultDocument, decode_group, decode_result, encode_group, encode_result
from aioretryq.retry import RESULT_POLICY, IntervalPolicy, Policy, RetryPolicy, retrying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aioretryq.backends.base import ResultBackend
    from aioretryq.config import Settings
    from aioretryq.protocol.result import ResultFormat

logger = logging.getLogger("aioretryq.results")
T = TypeVar("T")


def interval_policy(values: Mapping[str, Any], default: IntervalPolicy, setting: str) -> IntervalPolicy:
    """A policy from Celery's dictionary (`max_retries, interval_start, interval_step, interval_max`)."""
    known = {name: getattr(default, name) for name in IntervalPolicy.__dataclass_fields__}
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"{setting} has no {unknown[0]!r}; it takes {', '.join(known)}.")
    numbers = {**known, **values}
    for name, value in numbers.items():
        may_be_none = name == "max_retries" and value is None
        if not may_be_none and (not isinstance(value, int | float) or isinstance(value, bool) or value < 0):
            raise ConfigError(f"{setting}[{name!r}] must be a number, at least 0, not {value!r}.")
    return IntervalPolicy(**numbers)


class ResultStore:
    """Result documents by task id. `sleep` is the clock of every retry: pass one that does not wait in tests."""

    def __init__(
        self, backend: ResultBackend, settings: Settings, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    ) -> None:
        self.backend = backend
        self._settings = settings
        self._sleep = sleep
        self._cache: OrderedDict[str, ResultDocument] = OrderedDict()
        self._made = result_format(settings)
        self._told = False  # that operations are tried again, since the last one that succeeded
        given = settings.result_backend_transport_options.get("retry_policy", {})
        self.retry_policy = interval_policy(given, RESULT_POLICY, "result_backend_transport_options['retry_policy']")

    @property
    def _form(self) -> ResultFormat:
        if self._made.max_size != self._settings.max_payload_bytes:  # set since
            self._made = result_format(self._settings)
        return self._made

    def exception_safe_to_retry(self, error: BaseException) -> bool:
        """Whether the operation may be tried again: adapters say so by raising BackendUnavailable."""
        return isinstance(error, BackendUnavailable)

    def record(self, document: ResultDocument) -> StoredResult:
        """The document as the backend takes it; PayloadTooLarge if it is larger than `max_payload_bytes`."""
        data = encode_result(document, self._form)
        settings = self._settings
        life = settings.result_expires
        if document.status == states.FAILURE and settings.result_failure_expires is not None:
            life = settings.result_failure_expires
        return StoredResult(document.task_id, document.status, data, life or None)

    async def store(self, records: Sequence[StoredResult]) -> list[bool]:
        """Store and announce; False for each that came after a final state (`states.stays`).

        Raises BackendStoreError with `result_backend_always_retry`, else what the adapter raised.
        """
        if not records:
            return []

        async def attempt() -> list[bool]:
            return await self.ensure(lambda: self.backend.store(records))

        def failed(error: AioretryqError) -> AioretryqError:
            first = records[0]
            text = f"Could not store {len(records)} result(s) on {self.backend.display_url}: {error}"
            return BackendStoreError(text, task_id=first.task_id, state=first.state)

        return await self._always_retry(attempt, failed)

    async def get_task_meta(self, task_id: str) -> ResultDocument:
        """The stored document, or one in state PENDING.

        Raises BackendGetMetaError with `result_backend_always_retry`, else what the adapter raised.
        """
        if (known := self.cached(task_id)) is not None:
            return known

        async def attempt() -> bytes | None:
            return (await self.backend.fetch([task_id]))[0]

        def failed(error: AioretryqError) -> AioretryqError:
            text = f"Could not read the result of {task_id} from {self.backend.display_url}: {error}"
            return BackendGetMetaError(text, task_id=task_id)

        data = await self._always_retry(attempt, failed)
        if data is None:
            return ResultDocument(task_id=task_id, status=states.PENDING)
        return self.read(task_id, data)

    def cached(self, task_id: str) -> ResultDocument | None:
        """The document of a SUCCESS that was read before and is kept (`result_cache_max`)."""
        if task_id in self._cache:
            self._cache.move_to_end(task_id)
        return self._cache.get(task_id)

    def read(self, task_id: str, data: bytes) -> ResultDocument:
        document = decode_result(data, self._form)
        if document.status == states.SUCCESS:
            self._remember(task_id, document)
        return document

    async def forget(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            self._cache.pop(task_id, None)
        await self.ensure(lambda: self.backend.forget(task_ids))

    async def exists(self, task_id: str) -> bool:
        """Whether anything is stored for a task, readable or not."""
        return (await self.ensure(lambda: self.backend.fetch([task_id])))[0] is not None

    async def get_many(self, task_ids: Sequence[str]) -> list[ResultDocument]:
        """The stored documents in the order asked for, PENDING where there is none; in one round trip."""
        found = await self.ensure(lambda: self.backend.fetch(task_ids))
        return [
            self.read(task_id, data) if data is not None else ResultDocument(task_id=task_id, status=states.PENDING)
            for task_id, data in zip(task_ids, found, strict=True)
        ]

    # -- groups

    async def save_group(self, group_id: str, tree: Any) -> None:
        """Keep the tree of a group's results as long as a result."""
        document = encode_group(tree, self._form)
        await self.ensure(lambda: self.backend.save_group(group_id, document, self._settings.result_expires or None))

    async def restore_group(self, group_id: str) -> Any:
        """The tree that was saved, by us or Celery; None where there is none (any more)."""
        data = await self.ensure(lambda: self.backend.restore_group(group_id))
        return None if data is None else decode_group(data, self._form)

    async def delete_group(self, group_id: str) -> None:
        await self.ensure(lambda: self.backend.delete_group(group_id))

    async def ensure(self, operation: Callable[[], Awaitable[T]], policy: Policy | None = None) -> T:
        """Run `operation`, again by `retry_policy` while the backend cannot be reached."""
        return await self._retry(operation, policy or self.retry_policy)

    async def _always_retry(
        self, operation: Callable[[], Awaitable[T]], failed: Callable[[AioretryqError], AioretryqError]
    ) -> T:
        settings = self._settings
        if not settings.result_backend_always_retry:
            return await operation()
        limit = settings.result_backend_max_retries
        policy = RetryPolicy(
            max_retries=None if limit == float("inf") else int(limit),
            backoff=settings.result_backend_base_sleep_between_retries_ms / 1000,
            backoff_max=settings.result_backend_max_sleep_between_retries_ms / 1000,
        )
        try:
            return await self._retry(operation, policy)
        except AioretryqError as error:
            if not self.exception_safe_to_retry(error):
                raise
            raise failed(error) from error

    async def _retry(self, operation: Callable[[], Awaitable[T]], policy: Policy) -> T:
        async for attempt in retrying(policy, on=(BackendUnavailable,), on_retry=self._log_retry, sleep=self._sleep):
            with attempt:
                value = await operation()
                self._told = False
                return value
        raise AssertionError("a retry loop ends by returning or raising")

    def _log_retry(self, error: BaseException, retries: int, delay: float) -> None:
        level, self._told = (logging.DEBUG if self._told else logging.WARNING), True
        logger.log(
            level, "Result backend %s: %s; retry %d in %.2f s", self.backend.display_url, error, retries + 1, delay
        )

    def _remember(self, task_id: str, document: ResultDocument) -> None:
        limit = self._settings.result_cache_max
        if limit < 0:
            return
        self._cache[task_id] = document
        self._cache.move_to_end(task_id)
        if limit and len(self._cache) > limit:
            self._cache.popitem(last=False)
