"""The memory backend keeps the contract; the disabled one says that there is none."""

from __future__ import annotations

import contextlib
import uuid

import pytest

from aioretryq.backends.base import ResultBackend
from aioretryq.backends.disabled import DisabledBackend
from aioretryq.backends.memory import MemoryBackend
from aioretryq.config import Settings
from aioretryq.errors import ConfigError, NotOpenError
from contracts.backend_contract import BackendContract, doc, result
from contracts.shifted_clock import ShiftedClock


class MemoryWorld(ShiftedClock):
    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        super().__init__()
        self._stack = stack
        self._name = uuid.uuid4().hex

    async def connect(self) -> MemoryBackend:
        return await self._stack.enter_async_context(MemoryBackend(self._name, clock=self))


@pytest.fixture
async def world():
    async with contextlib.AsyncExitStack() as stack:
        yield MemoryWorld(stack)


class TestMemoryBackend(BackendContract):
    @pytest.fixture
    async def world(self, world):
        return world

    async def test_storing_lets_go_of_what_has_expired(self, world, backend):
        await backend.store([result("a", ttl=10)])
        await world.advance(11)
        await backend.store([result("b")])
        assert await backend.cleanup() == 0
        assert await backend.fetch(["a", "b"]) == [None, doc("b")]


async def test_without_a_name_nothing_is_shared():
    settings = Settings()
    async with (
        MemoryBackend.from_url("memory://", settings) as one,
        MemoryBackend.from_url("memory://", settings) as two,
    ):
        await one.store([result("a")])
        assert await two.fetch(["a"]) == [None]


async def test_a_backend_that_is_not_open_says_so():
    with pytest.raises(NotOpenError, match="async with"):
        await MemoryBackend().fetch(["a"])


async def test_disabled_drops_results_and_refuses_to_read():
    async with DisabledBackend.from_url("disabled", Settings()) as backend:
        assert isinstance(backend, ResultBackend)
        assert await backend.store([result("a"), result("b")]) == [True, True]
        assert await backend.cleanup() == 0
        with pytest.raises(ConfigError, match="result_backend="):
            await backend.fetch(["a"])
        with pytest.raises(ConfigError, match="result_backend="):
            await backend.forget(["a"])
        with pytest.raises(ConfigError, match="result_backend="):
            backend.listen()
