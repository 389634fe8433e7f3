"""Testing tasks, from the simplest way to the most complete; needs pytest and pytest-asyncio.

pytest examples/test_example.py
"""

import pytest

from aioretryq import Task, TaskQueue, Worker

pytestmark = pytest.mark.asyncio

queue = TaskQueue("memory://")  # for a queue of your application: queue.conf.broker_url = "memory://"


@queue.task(bind=True, autoretry_for=(ConnectionError,), max_retries=3, retry_backoff=0.01)
async def greet(self: Task[..., str], name: str, *, failures: int = 0) -> str:
    if self.request.retries < failures:
        raise ConnectionError("not yet")
    return f"Hello {name}!"


async def test_call_the_function() -> None:
    assert await greet("Ada") == "Hello Ada!"


async def test_run_through_all_retries_in_place() -> None:
    result = await greet.apply(("Ada",), {"failures": 2})

    assert await result == "Hello Ada!"
    assert result.request.retries == 2


async def test_run_out_of_retries() -> None:
    with pytest.raises(ConnectionError, match="not yet"):
        await greet.apply(("Ada",), {"failures": 4}, throw=True)


async def test_with_a_real_worker() -> None:
    async with queue, Worker(queue).running():
        result = await greet.delay("Ada", failures=2)

        assert await result.get(timeout=10) == "Hello Ada!"
