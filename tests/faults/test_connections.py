"""What a process keeps open, and what it is told, when its server goes and comes: inside of one process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from aioretryq import TaskQueue, Worker, current_task
from aioretryq.errors import PublishError
from faults.places import RedisPlace
from faults.workers import Fleet
from queues import soon, until

LEASE = 1.0
DROPS = 10


@pytest.fixture
def place() -> Iterator[RedisPlace]:
    place = RedisPlace(durable=False)
    yield place
    place.close()


def background() -> Counter[str]:
    """Tasks of the event loop by the function they run: a piece that is doubled shows here."""
    return Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks())


async def test_reconnecting_doubles_nothing(place: RedisPlace) -> None:
    """After each of ten lost connections there are as many background tasks, threads and connections as before."""
    queue = TaskQueue(place.url, lease=LEASE, task_publish_wait=20)

    @queue.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    async def work_goes_on() -> None:
        results = [await double.delay(number) for number in range(20)]
        assert [await soon(result.get()) for result in results] == [2 * number for number in range(20)]

    async with queue, Worker(queue, concurrency=5).running():
        await work_goes_on()
        # Renewals come in the course of time, and open what they need: only then is everything there.
        await asyncio.sleep(LEASE)
        tasks, threads, connections = background(), threading.active_count(), place.network.connections
        for _ in range(DROPS):
            place.network.drop()
            await work_goes_on()
        await asyncio.sleep(LEASE)
        await until(lambda: place.network.connections <= connections + 1)
        assert threading.active_count() <= threads + 1
        more = {name: count - tasks[name] for name, count in background().items() if count > tasks[name]}
        assert not more, f"background tasks that were not there before: {more}"


async def test_an_idle_worker_does_not_reconnect(place: RedisPlace) -> None:
    async with TaskQueue(place.url, lease=LEASE) as queue, Worker(queue).running():
        await asyncio.sleep(LEASE)
        accepted = place.network.accepted
        await asyncio.sleep(2 * LEASE)
        assert place.network.accepted == accepted


async def test_sending_into_silence_ends_at_its_deadline_or_when_cancelled(place: RedisPlace) -> None:
    async with TaskQueue(place.url, lease=LEASE) as queue:
        await queue.send_task("anything")
        place.network.black_hole()
        begun = time.monotonic()
        with pytest.raises(PublishError):
            await soon(queue.send_task("anything", timeout=1))
        assert time.monotonic() - begun < 5
        waiting = asyncio.create_task(queue.send_task("anything", timeout=600))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, 5)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5, "closing waited for a server that does not answer"


async def test_waiting_for_a_result_in_silence_ends_at_its_deadline(place: RedisPlace) -> None:
    async with TaskQueue(place.url, lease=LEASE) as queue:
        result = await queue.send_task("anything")
        waiting = asyncio.create_task(result.get(timeout=1.5))
        await asyncio.sleep(0.2)
        place.network.black_hole()
        with pytest.raises(TimeoutError):
            await soon(waiting)


@pytest.mark.parametrize("where", ["redis://no-such-host.invalid:6379/0", "redis://127.0.0.1:1/0"])
def test_a_worker_without_a_server_waits_or_ends_as_it_was_told(where: str, tmp_path) -> None:
    fleet = Fleet({"FAULTS_TRACE": str(tmp_path / "trace"), "AIORETRYQ_URL": where})
    try:
        patient = fleet.launch()
        strict = fleet.launch(AIORETRYQ_BROKER_CONNECTION_RETRY_ON_STARTUP="false")
        patient.says("Cannot reach Redis")
        assert strict.wait() == 1
        assert "Cannot reach Redis" in strict.output
        before = patient.cpu()
        time.sleep(3)
        assert patient.cpu() - before < 0.3
        patient.term()
        assert patient.wait(10) == 0
    finally:
        fleet.close()


async def test_what_waits_in_a_worker_when_its_server_goes_comes_back_at_once(place: RedisPlace) -> None:
    """It was fetched and has not started: an outage is nobody's death, and costs it no delivery."""
    queue = TaskQueue(place.url, lease=LEASE)
    ran: list[tuple[int, int]] = []
    cut, released = asyncio.Event(), asyncio.Event()

    @queue.task(name="work")
    async def work(number: int) -> None:
        ran.append((number, current_task().request.deliveries))
        if number == 300:
            place.network.cut()
            cut.set()
            await released.wait()

    async with queue:
        results = await work.delay_many([(number,) for number in range(320)])
        async with Worker(queue, concurrency=1).running():
            await soon(cut.wait())
            assert len(place.look().held) > 1
            await asyncio.sleep(1.5 * LEASE)
            place.network.heal()
            await until(lambda: len(place.look().held) == 1)
            released.set()
            for result in results:
                await soon(result.get())
    assert ran == [(number, 1) for number in range(320)]
