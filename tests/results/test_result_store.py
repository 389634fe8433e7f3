"""Retries and the cache between a queue and its result backend."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest
from results.fake_backends import TroubledBackend

from aioretryq import (
    BackendError,
    BackendGetMetaError,
    BackendStoreError,
    BackendUnavailable,
    ConfigError,
    PayloadTooLarge,
    Settings,
)
from aioretryq.backends.store import ResultStore
from aioretryq.protocol.result import ResultDocument

NO_ENSURE = {"retry_policy": {"max_retries": 0}}


class Opened:
    """A store over a troubled backend, with a clock that only notes."""

    def __init__(self, backend, settings):
        self.backend = backend
        self.slept = []
        self.store = ResultStore(backend, settings, sleep=self.sleep)

    async def sleep(self, delay):
        self.slept.append(delay)

    async def put(self, task_id="a", status="SUCCESS", result=1):
        document = ResultDocument(task_id=task_id, status=status, result=result)
        return await self.store.store([self.store.record(document)])


@pytest.fixture
async def opened():
    async with contextlib.AsyncExitStack() as stack:

        async def open_store(failures=0, error=None, **settings):
            conf = Settings()
            conf.update(settings)
            backend = await stack.enter_async_context(TroubledBackend(failures, error))
            return Opened(backend, conf)

        yield open_store


async def test_a_write_is_tried_again_by_the_retry_policy(opened):
    world = await opened(failures=5)
    assert await world.put() == [True]
    assert world.slept == [0, 1, 1, 1, 1]


async def test_one_warning_when_retrying_begins(opened, caplog):
    caplog.set_level(logging.DEBUG, "aioretryq.results")
    world = await opened(failures=5)
    for _ in range(2):
        await world.put()
        world.backend.failures = 3
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.WARNING, *[logging.DEBUG] * 4, logging.WARNING, *[logging.DEBUG] * 2]


async def test_the_retry_policy_ends_after_twenty_retries(opened):
    world = await opened(failures=10**6)
    with pytest.raises(BackendUnavailable, match="gone"):
        await world.put()
    assert world.backend.calls == 21
    assert world.slept == [0, *[1] * 19]


async def test_the_retry_policy_is_an_option_of_the_transport(opened):
    policy = {"max_retries": 3, "interval_start": 2, "interval_step": 0.5, "interval_max": 2.5}
    world = await opened(10**6, result_backend_transport_options={"retry_policy": policy})
    with pytest.raises(BackendUnavailable):
        await world.put()
    assert world.slept == [2, 2.5, 2.5]
    for wrong in ({"max_retry": 1}, {"interval_step": "x"}):
        with pytest.raises(ConfigError, match="retry_policy"):
            await opened(result_backend_transport_options={"retry_policy": wrong})


async def test_reading_is_not_retried_unless_asked_for(opened):
    world = await opened(failures=1)
    with pytest.raises(BackendUnavailable):
        await world.store.get_task_meta("a")
    assert (await world.store.get_task_meta("a")).status == "PENDING"
    assert world.slept == []


# -- result_backend_always_retry and its companions


async def test_always_retry_backs_off_with_full_jitter_from_ten_ms_to_ten_s(opened):
    world = await opened(60, result_backend_always_retry=True, result_backend_transport_options=NO_ENSURE)
    assert await world.put() == [True]
    assert len(world.slept) == 60
    ceilings = [min(0.01 * 2**n, 10) for n in range(60)]
    assert all(0 <= slept <= top for slept, top in zip(world.slept, ceilings, strict=True))
    assert max(world.slept) > 5
    assert len(set(world.slept)) > 50


async def test_always_retry_by_default_never_gives_up(opened):
    world = await opened(3000, result_backend_always_retry=True)
    assert (await world.store.get_task_meta("a")).status == "PENDING"
    assert len(world.slept) == 3000


async def test_storing_ends_in_backend_store_error(opened):
    world = await opened(
        10**6,
        result_backend_always_retry=True,
        result_backend_max_retries=10,
        result_backend_base_sleep_between_retries_ms=50,
        result_backend_max_sleep_between_retries_ms=200,
        result_backend_transport_options=NO_ENSURE,
    )
    with pytest.raises(BackendStoreError, match="troubled://") as raised:
        await world.put("the-id", "FAILURE")
    assert (raised.value.task_id, raised.value.state) == ("the-id", "FAILURE")
    assert isinstance(raised.value.__cause__, BackendUnavailable)
    assert world.backend.calls == 11
    assert all(s <= top for s, top in zip(world.slept, [0.05, 0.1, *[0.2] * 8], strict=True))


async def test_reading_ends_in_backend_get_meta_error(opened):
    world = await opened(10**6, result_backend_always_retry=True, result_backend_max_retries=3)
    with pytest.raises(BackendGetMetaError, match="the-id") as raised:
        await world.store.get_task_meta("the-id")
    assert raised.value.task_id == "the-id"
    assert isinstance(raised.value.__cause__, BackendUnavailable)
    assert world.backend.calls == 4


async def test_a_refusal_is_not_retried_and_stays_what_it_is(opened):
    world = await opened(1, BackendError("refused"), result_backend_always_retry=True)
    with pytest.raises(BackendError, match="refused") as raised:
        await world.put()
    assert type(raised.value) is BackendError
    assert world.slept == []


async def test_which_errors_are_safe_to_retry(opened):
    store = (await opened()).store
    assert store.exception_safe_to_retry(BackendUnavailable("x"))
    for error in (BackendError("x"), OSError("x"), ValueError("x")):
        assert not store.exception_safe_to_retry(error)


async def test_cancelling_ends_the_retries(opened):
    world = await opened(10**6, result_backend_always_retry=True)
    waiting = asyncio.Event()

    async def sleep(delay):
        waiting.set()
        await asyncio.Event().wait()

    world.store = ResultStore(world.backend, Settings(), sleep=sleep)
    task = asyncio.create_task(world.put())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- the cache


async def test_without_a_cache_every_look_asks_the_backend(opened):
    world = await opened()
    await world.put()
    for _ in range(3):
        assert (await world.store.get_task_meta("a")).result == 1
    assert len(world.backend.fetched) == 3


async def test_the_cache_keeps_the_most_recently_used_successes(opened):
    world = await opened(result_cache_max=2)
    for task_id in "abc":
        await world.put(task_id)
    for task_id in ("a", "b", "a", "c", "a", "b"):  # "b" had to make room for "c"
        await world.store.get_task_meta(task_id)
    assert world.backend.fetched == [["a"], ["b"], ["c"], ["b"]]


async def test_zero_keeps_all(opened):
    world = await opened(result_cache_max=0)
    for _ in range(2):
        for number in range(100):
            await world.put(str(number))
            await world.store.get_task_meta(str(number))
    assert len(world.backend.fetched) == 100


@pytest.mark.parametrize("status", ["FAILURE", "REVOKED", "RETRY", "STARTED"])
async def test_only_success_is_cached(opened, status):
    world = await opened(result_cache_max=10)
    await world.put("a", status)
    for _ in range(2):
        assert (await world.store.get_task_meta("a")).status == status
    assert (await world.store.get_task_meta("unknown")).status == "PENDING"
    await world.store.get_task_meta("unknown")
    assert len(world.backend.fetched) == 4


async def test_forgetting_drops_it_from_the_cache_too(opened):
    world = await opened(result_cache_max=10)
    await world.put()
    await world.store.get_task_meta("a")
    await world.store.forget(["a", "unknown"])
    assert (await world.store.get_task_meta("a")).status == "PENDING"


# -- the rest


async def test_a_final_state_is_never_overwritten(opened):
    world = await opened()
    assert await world.put("a", "STARTED") == [True]
    assert await world.put("a", "FAILURE", "first") == [True]
    assert await world.put("a", "SUCCESS", "second") == [False]
    assert await world.put("a", "RETRY", "third") == [False]
    assert (await world.store.get_task_meta("a")).result == "first"


async def test_results_have_a_largest_size(opened):
    world = await opened(max_payload_bytes=1000)
    with pytest.raises(PayloadTooLarge, match="max_payload_bytes"):
        await world.put(result="x" * 2000)
