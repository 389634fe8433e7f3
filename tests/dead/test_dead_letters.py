"""`queue.dead_letters` on every broker."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import timedelta

import pytest
from letters import entry, listed, numbered, task_payload, unreadable, waiting

from aioretryq import DeadLetters, NotOpenError, ProtocolError, TaskQueue, UnknownDeadLetter, Worker
from aioretryq.errors import ConfigError
from aioretryq.message import DeadEntry
from aioretryq.protocol.task import decode_task
from queues import dead_letters, soon


async def test_what_is_there_is_listed_oldest_first(url):
    async with TaskQueue(url) as queue:
        await queue.broker.bury([entry(ago=ago, task_id=f"{ago}") for ago in (5, 7200, 60)])
        found = [each async for each in queue.dead_letters.list()]

    assert [each.task_id for each in found] == ["7200", "60", "5"]
    first = found[0]
    assert (first.reason, first.queue, first.task, first.worker, first.attempts, first.error) == (
        "failed",
        "celery",
        "app.add",
        "w1@host",
        1,
        "ValueError('bad')",
    )
    assert first.payload == task_payload()
    assert 7200 <= first.age < 7260


async def test_filters(url):
    async with TaskQueue(url) as queue:
        await queue.broker.bury(
            [
                entry(ago=7200, task_id="old", task="app.mail.send", queue="mail"),
                entry(ago=60, task_id="new", task="app.mail.send", reason="retries exhausted"),
                entry(ago=30, task_id="bad", task=None, reason="undecodable"),
            ]
        )

        assert await listed(queue, task="app.mail.*") == ["old", "new"]
        assert await listed(queue, queue="mail") == ["old"]
        assert await listed(queue, reason="retries") == ["new"]
        assert await listed(queue, older_than=3600) == ["old"]
        assert await listed(queue, newer_than=timedelta(hours=1)) == ["new", "bad"]
        assert await listed(queue, newer_than=3600, older_than=45) == ["new"]
        assert await listed(queue, task="nothing") == []
        assert await queue.dead_letters.count() == 3
        assert await queue.dead_letters.count(reason="undecodable") == 1


async def test_many_in_pages_with_some_that_cannot_be_read(url):
    entries = numbered(700)
    broken = [unreadable(ago=ago + 0.5, content=b"\xff" * 10_000) for ago in range(0, 700, 10)]
    async with TaskQueue(url) as queue:
        await queue.broker.bury(entries + broken)
        found = [each async for each in queue.dead_letters.list()]

        assert [each.id for each in found] == sorted(each.id for each in entries + broken)
        assert sum(not each.readable for each in found) == len(broken)


async def test_a_listing_ends_although_more_is_buried_all_the_time(url):
    async with TaskQueue(url) as queue:
        await queue.broker.bury(numbered(30))
        count = 0
        async for _ in queue.dead_letters.list():
            await queue.broker.bury([entry(), entry()])
            count += 1

        assert count == 30


async def test_an_entry_of_a_machine_whose_clock_is_ahead_is_found(url):
    async with TaskQueue(url) as queue:
        await queue.broker.bury([entry(task_id="now"), entry(ago=-3600, task_id="ahead")])

        assert await listed(queue) == ["now", "ahead"]
        assert [each.age async for each in queue.dead_letters.list()][1] == 0


async def test_get_by_id_or_its_beginning(url):
    one, two = entry(ago=10), entry(ago=5)
    twin = DeadEntry(two.id + "0", two.content)
    async with TaskQueue(url) as queue:
        await queue.broker.bury([one, two, twin])
        letters = queue.dead_letters

        assert (await letters.get(one.id)).id == one.id
        assert (await letters.get(one.id[:16])).id == one.id
        assert (await letters.get(two.id)).id == two.id  # also the beginning of another one
        with pytest.raises(UnknownDeadLetter, match=f"{two.id}, {twin.id}"):
            await letters.get(two.id[:16])
        with pytest.raises(UnknownDeadLetter, match="no dead letter"):
            await letters.get("ffff")
        for nothing in ("", None):
            with pytest.raises(UnknownDeadLetter):
                await letters.get(nothing)


async def test_get_by_the_id_of_the_task(url):
    entries = [entry(ago=ago, task_id=task) for ago, task in ((30, "first"), (20, "second"), (10, "third"))]
    async with TaskQueue(url) as queue:
        await queue.broker.bury(entries)

        assert (await queue.dead_letters.get("second")).id == entries[1].id
        with pytest.raises(UnknownDeadLetter, match="none of a task with that id"):
            await queue.dead_letters.get("secon")
        assert await queue.dead_letters.replay(["third"]) == 1
        assert await listed(queue) == ["first", "second"]


async def test_a_replayed_task_runs_and_its_new_result_counts(url):
    queue = TaskQueue(url, task_dead_letter=True)
    works = False

    @queue.task(name="app.add", max_retries=0)
    async def add(x: int, y: int) -> int:
        if not works:
            raise ValueError("not yet")
        return x + y

    async with queue, Worker(queue).running():
        result = await add.delay(2, 3)
        with pytest.raises(ValueError, match="not yet"):
            await soon(result.get())
        while await queue.dead_letters.count() == 0:  # a caller has its result before the message is buried
            await asyncio.sleep(0.001)
        works = True

        assert await queue.dead_letters.replay() == 1
        assert await soon(queue.AsyncResult(result.id).get()) == 5
        assert await queue.dead_letters.count() == 0


async def test_replay_makes_first_attempts_in_their_queues(url):
    buried = [
        entry(ago=3, payload=task_payload(retries=4, priority=6), priority=6, queue="low"),
        entry(ago=2, payload=b"\x00 no message", queue="low", task=None),
        entry(ago=1, payload=task_payload(retries=4)),
    ]
    async with TaskQueue(url) as queue:
        await queue.broker.bury(buried)

        assert await queue.dead_letters.replay() == 3
        high = (await queue.broker.claim(["celery"], limit=10)).deliveries
        low = (await queue.broker.claim(["low"], limit=10)).deliveries

    assert [decode_task(each.body).retries for each in high] == [0]
    assert [each.priority for each in low] == [0, 6]
    assert low[0].body == b"\x00 no message"
    assert not any(each.redelivered for each in high + low)


async def test_replay_with_filters_to_another_queue(url):
    async with TaskQueue(url) as queue:
        await queue.broker.bury([*numbered(20), entry(task="app.other", task_id="other")])
        progress = []

        assert await queue.dead_letters.replay(task="app.add", to="slow", progress=progress.append) == 20
        assert await waiting(queue, "slow") == 20
        assert progress[-1] == 20
        assert await listed(queue) == ["other"]


async def test_replay_leaves_what_comes_back_meanwhile(url):
    async with TaskQueue(url) as queue:
        await queue.broker.bury(numbered(3))
        coming = [entry(ago=-1, task_id="back")]

        async def come_back(_: float) -> None:
            while coming:
                await queue.broker.bury([coming.pop()])

        assert await DeadLetters(queue, sleep=come_back).replay(rate=0.01) == 3
        assert await listed(queue) == ["back"]


async def test_ids_are_checked_before_anything_is_sent(url):
    broken = unreadable()
    async with TaskQueue(url) as queue:
        await queue.broker.bury([*numbered(3), broken])
        ids = [each.id async for each in queue.dead_letters.list()]

        with pytest.raises(UnknownDeadLetter):
            await queue.dead_letters.replay([ids[0], "ffff"])
        with pytest.raises(ProtocolError, match="purge it"):
            await queue.dead_letters.replay(ids)
        with pytest.raises(ConfigError, match="not both"):
            await queue.dead_letters.replay(ids, task="app.add")
        assert await queue.dead_letters.replay([]) == 0
        assert await queue.dead_letters.count() == 4

        assert await queue.dead_letters.replay([ids[1], ids[1][:16]]) == 1
        assert await listed(queue) == ["t0", "t2", None]
        assert await queue.dead_letters.replay() == 2
        assert await queue.dead_letters.count() == 1
        assert await queue.dead_letters.purge(broken.id) == 1


async def test_two_operators_double_nothing(url):
    async with TaskQueue(url) as queue:
        await queue.broker.bury(numbered(200))
        async with TaskQueue(url) as other:
            counts = await asyncio.gather(queue.dead_letters.replay(), other.dead_letters.replay())

        assert sum(counts) == 200
        assert await waiting(queue) == 200
        assert await queue.dead_letters.count() == 0


async def test_a_slow_operator_does_not_forget_what_a_quick_one_has_let_run(url):
    queue = TaskQueue(url, task_dead_letter=True)
    mended = False

    @queue.task(max_retries=0)
    async def double(number):
        if not mended:
            raise ValueError(number)
        return number * 2

    async def sleep(_):
        """The quick one sends everything that is left, and it runs."""
        if await queue.dead_letters.count():
            await queue.dead_letters.replay()
            for number, result in enumerate(results):
                assert await result.get() == number * 2

    async with queue, Worker(queue).running():
        results = [await double.delay(number) for number in range(6)]
        await dead_letters(queue, 6)
        mended = True

        assert await soon(DeadLetters(queue, sleep=sleep).replay(rate=0.01)) == 1
        assert [await result.status() for result in results] == ["SUCCESS"] * 6


async def test_a_rate_is_kept_without_bursts(url):
    moments, now = [], 100.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def sent(_: int) -> None:
        nonlocal now
        moments.append(now)
        now += 3.0 if len(moments) == 2 else 0.0  # something takes long: that is not caught up with

    async with TaskQueue(url) as queue:
        await queue.broker.bury(numbered(5))
        letters = DeadLetters(queue, ticks=lambda: now, sleep=sleep)

        assert await letters.replay(rate=2, progress=sent) == 5

    assert moments == pytest.approx([100.0, 100.5, 103.5, 104.0, 104.5])


async def test_stopping_in_the_middle_leaves_the_rest(url):
    reached = asyncio.Event()

    async def sleep(_: float) -> None:
        if await waiting(queue) == 3:
            reached.set()
            await asyncio.Event().wait()

    async with TaskQueue(url) as queue:
        await queue.broker.bury(numbered(10))
        replaying = asyncio.create_task(DeadLetters(queue, sleep=sleep).replay(rate=0.01))
        await soon(reached.wait())
        replaying.cancel()
        await asyncio.wait([replaying])

        assert replaying.cancelled()
        assert await waiting(queue) == 3
        assert await listed(queue) == [f"t{n}" for n in range(3, 10)]


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"rate": -1}, {"rate": "fast"}, {"to": ""}, {"to": 5}])
async def test_options_that_make_no_sense(url, wrong):
    async with TaskQueue(url) as queue:
        await queue.broker.bury(numbered(1))
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            await queue.dead_letters.replay(**wrong)
        assert await queue.dead_letters.count() == 1


async def test_purge(url):
    async with TaskQueue(url) as queue:
        await queue.broker.bury([*numbered(300), entry(ago=7200, task_id="old"), unreadable()])

        assert await queue.dead_letters.purge(older_than=3600) == 1
        assert await queue.dead_letters.purge(reason="unreadable") == 1
        assert await queue.dead_letters.purge([]) == 0
        oldest, *_ = [each.id async for each in queue.dead_letters.list()]
        assert await queue.dead_letters.purge([oldest[:16]]) == 1
        assert await queue.dead_letters.purge() == 299
        assert await queue.dead_letters.count() == await waiting(queue) == 0


async def test_replay_without_a_result_backend(url):
    async with TaskQueue(url, backend="disabled") as queue:
        await queue.broker.bury(numbered(2))

        assert await queue.dead_letters.replay() == 2
        assert await waiting(queue) == 2


async def test_export_is_json_and_enough_to_send_it_by_hand(url):
    error = {"attempt": 1, "time": 1.5, "worker": "w", "error": "OSError()"}
    async with TaskQueue(url) as queue:
        await queue.broker.bury([entry(ago=1, errors=[error]), entry(payload=b"\xff", task=None)])
        task, other = [json.loads(json.dumps(record)) async for record in queue.dead_letters.export()]

    assert (task["task"], task["args"], task["kwargs"], task["errors"]) == ("app.add", "(2, 3)", "{}", [error])
    assert base64.b64decode(task["payload"]) == task_payload()
    assert (other["args"], base64.b64decode(other["payload"])) == (None, b"\xff")


async def test_arguments_that_must_not_be_read_are_shown_as_their_sender_did(url):
    pickled = task_payload(args=[1, {2}], content_type="application/x-python-serialize")
    async with TaskQueue(url) as queue:
        await queue.broker.bury([entry(payload=pickled)])
        [record] = [record async for record in queue.dead_letters.export()]

    assert record["args"] == "(1, {2})"


async def test_an_outage_of_a_moment_is_lived_through(redis_server, redis_url):
    async with TaskQueue(redis_url) as queue:
        await queue.broker.bury(numbered(2))
        redis_server.restart()

        assert await queue.dead_letters.count() == 0


async def test_a_queue_that_is_not_open(url):
    with pytest.raises(NotOpenError):
        await TaskQueue(url).dead_letters.count()
