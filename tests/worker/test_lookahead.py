"""How many messages a worker holds that it has not started."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioretryq import TaskQueue, TaskRevokedError, Worker
from aioretryq.worker.lookahead import FEWEST, LARGEST, SOON, Lookahead
from queues import soon, until


def after(*ended: tuple[float, int]) -> Lookahead:
    """One that was told these times and totals."""
    lookahead = Lookahead()
    for now, total in ended:
        lookahead.note_ended(total, now)
    return lookahead


class TestDeciding:
    def test_before_anything_has_ended_there_is_nothing_to_go_by(self):
        assert Lookahead().ahead(10.0) == 0
        assert after((10.0, 0)).ahead(10.0) == 0
        assert after((10.0, 0)).wanted(room=3, waiting=0, now=10.0) == 3

    def test_as_many_as_have_ended_lately(self):
        steady = after(*((n / 1000, n * 2) for n in range(200)))  # 2,000 a second
        assert steady.ahead(0.199) == pytest.approx(2000 * SOON, abs=2)

    def test_what_ended_earlier_does_not_count(self):
        lookahead = after((10.0, 0), (10.01, 100))
        assert lookahead.ahead(10.02) == 100
        lookahead.note_ended(100, 10.2)
        assert lookahead.ahead(10.2) == 0

    def test_a_long_time_without_a_look_is_no_burst(self):
        assert after((10.0, 0), (20.0, 100)).ahead(20.0) == 0

    @pytest.mark.parametrize("seconds", [SOON / FEWEST * 1.1, 0.1, 1.0, 60.0])
    def test_long_tasks_give_no_reason(self, seconds):
        one_by_one = after(*((n * seconds, n) for n in range(20)))
        assert one_by_one.ahead(19 * seconds) == 0
        assert one_by_one.wanted(room=0, waiting=0, now=19 * seconds) == 0

    def test_more_is_fetched_when_half_is_used_up(self):
        lookahead = after((10.0, 0), (10.01, 100))
        found = [lookahead.wanted(room=0, waiting=waiting, now=10.02) for waiting in (0, 50, 51, 100, 200)]
        assert found == [100, 50, 0, 0, 0]

    def test_room_is_filled_at_once(self):
        lookahead = after((10.0, 0), (10.01, 100))
        assert lookahead.wanted(room=60, waiting=10, now=10.02) == 150
        assert lookahead.wanted(room=10, waiting=60, now=10.02) == 0  # those that wait fill it

    @given(
        st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2000)), max_size=30),
        st.integers(-100, 10_000),
        st.integers(0, 1000),
    )
    def test_never_too_many(self, steps, room, waiting):
        lookahead, now, total = Lookahead(), 0.0, 0
        for seconds, ended in steps:
            now, total = now + seconds, total + ended
            lookahead.note_ended(total, now)
        wanted = lookahead.wanted(room, waiting, now)
        assert 0 <= wanted <= LARGEST
        assert waiting + wanted <= max(room, waiting) + LARGEST
        assert wanted > 0 or room <= waiting


async def test_long_tasks_are_left_to_others(redis_url):
    """Two workers with one place each: neither holds a message that the other could start."""
    queue = TaskQueue(redis_url, result_backend=redis_url)
    running: set[str] = set()
    release = asyncio.Event()

    @queue.task(bind=True)
    async def long(self):
        running.add(self.request.hostname)
        await release.wait()

    async with (
        queue,
        Worker(queue, name="a", concurrency=1).running(),
        Worker(queue, name="b", concurrency=1).running(),
    ):
        results = [await long.delay() for _ in range(4)]
        await until(lambda: len(running) == 2)
        assert await queue.broker.depth(["celery"]) == {"celery": 2}
        release.set()
        for result in results:
            await soon(result.get())


async def test_what_waits_behind_a_long_task_goes_to_others(redis_url):
    """Hundreds of tiny tasks, then a long one: what its worker has fetched meanwhile another one gets."""
    queue = TaskQueue(redis_url, result_backend=redis_url)
    release = asyncio.Event()
    ran: list[tuple[int, str]] = []

    @queue.task(bind=True)
    async def work(self, number):
        ran.append((number, self.request.hostname))
        if number == 300:
            await release.wait()

    async with queue:
        results = [await work.delay(number) for number in range(320)]
        async with Worker(queue, name="a@here", concurrency=1).running():
            await until(lambda: (300, "a@here") in ran)
            async with Worker(queue, name="b@here", concurrency=1).running():
                for result in results[301:]:
                    await soon(result.get())
                assert {name for number, name in ran if number > 300} == {"b@here"}
                release.set()
                await soon(results[300].get())
    # Each once. What the first had not fetched yet the other one may have begun with.
    assert sorted(number for number, _ in ran) == list(range(320))


@pytest.mark.parametrize("seconds", [0.5, 2.5])
async def test_what_waits_while_the_loop_is_blocked_goes_to_others(url, seconds):
    """For less, and for more, than the lease of a second: nothing runs twice, and nobody is suspected of anything."""
    ran: list[tuple[int, str, int]] = []
    blocked = threading.Event()

    def opened(name):
        queue = TaskQueue(url, result_backend=url, lease=1.0)

        @queue.task(bind=True, name="work")
        async def work(self, number):
            ran.append((number, name, self.request.deliveries))
            if number == 300:
                blocked.set()
                time.sleep(seconds)

        return queue, work

    async def other():
        blocked.wait()
        queue, _ = opened("b")
        async with queue, Worker(queue, name="b@here", concurrency=1).running():
            await until(lambda: len(ran) >= 320)

    thread = threading.Thread(target=lambda: asyncio.run(other()))
    queue, work = opened("a")
    async with queue:
        results = await work.delay_many([(number,) for number in range(320)])
        async with Worker(queue, name="a@here", concurrency=1).running():
            thread.start()
            for result in results:
                await soon(result.get())
            await asyncio.to_thread(thread.join)
    assert sorted(number for number, *_ in ran) == list(range(320))
    assert {deliveries for *_, deliveries in ran} == {1}


async def test_what_is_revoked_while_the_loop_is_blocked_does_not_start(url):
    """It is here already, and the news of it is not."""
    queue = TaskQueue(url, result_backend=url)
    ran: list[int] = []

    @queue.task
    async def work(number):
        ran.append(number)
        if number == 300:
            revoking = threading.Thread(target=lambda: asyncio.run(revoke()))
            revoking.start()
            time.sleep(1.5)
            revoking.join()

    async def revoke():
        async with TaskQueue(url, result_backend=url) as other:
            for result in results[310:]:
                await other.revoke(result.task_id)

    async with queue:
        results = await work.delay_many([(number,) for number in range(320)])
        async with Worker(queue, concurrency=1).running():
            for result in results[:310]:
                await soon(result.get())
            for result in results[310:]:
                with pytest.raises(TaskRevokedError):
                    await soon(result.get())
    assert ran == list(range(310))


async def test_a_stop_gives_back_what_waits(redis_url):
    queue = TaskQueue(redis_url, result_backend=redis_url, task_ignore_result=True)
    ran = 0

    @queue.task
    async def count():
        nonlocal ran
        ran += 1

    async with queue:
        await asyncio.gather(*(count.delay() for _ in range(3000)))
        worker = Worker(queue, concurrency=10)
        async with worker.running():
            await until(lambda: ran > 500)
        left = (await queue.broker.depth(["celery"]))["celery"]
        assert ran + left == 3000
        started = time.monotonic()
        async with Worker(queue).running():
            await until(lambda: ran == 3000)
        assert time.monotonic() - started < 15  # nothing had to wait for its lease to end
