"""Tasks that are tried again, on each broker."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta

import pytest

from aioretryq import MaxRetriesExceededError, Retry, TaskQueue, Worker
from aioretryq.protocol.task import parse_moment
from queues import soon


@pytest.fixture
async def queue(url):
    async with TaskQueue(url) as queue:
        yield queue


@pytest.fixture
async def worker(queue):
    async with Worker(queue).running() as worker:
        yield worker


class Down(ConnectionError):
    pass


async def reached(result, status):
    """The update that says so."""
    async with asyncio.timeout(15):
        async for update in result.updates():
            if update.status == status:
                return update
    raise AssertionError(f"never {status}")


async def test_autoretry_until_it_works(queue, worker):
    seen = []

    @queue.task(bind=True, autoretry_for=(ConnectionError,), max_retries=5, default_retry_delay=0.01)
    async def work(self, x):
        seen.append((self.request.id, self.request.retries))
        if len(seen) < 4:
            raise Down("no")  # a subclass of what is listed
        return x

    result = await work.delay("value")
    assert await soon(result.get()) == "value"
    assert seen == [(result.id, retries) for retries in range(4)]


async def test_exhausted_it_fails_with_its_own_exception(queue, worker):
    attempts = []

    @queue.task(autoretry_for=(ConnectionError,), max_retries=2, default_retry_delay=0.01)
    def work():
        attempts.append(1)
        raise Down("still no")

    result = await work.delay()
    with pytest.raises(Down) as raised:
        await soon(result.get())
    assert raised.value.args == ("still no",)
    assert len(attempts) == 3
    assert await result.status() == "FAILURE"
    traceback = await result.traceback()
    assert "Down: still no" in traceback
    assert traceback.count("File ") == 1, "only the frames of the task"


async def test_what_is_not_retried(queue, worker):
    attempts = []

    @queue.task(autoretry_for=(OSError,), dont_autoretry_for=(Down,), default_retry_delay=0.01)
    async def work(kind):
        attempts.append(kind)
        raise {"excluded": Down, "unlisted": ValueError}[kind](kind)

    for kind, error in (("excluded", Down), ("unlisted", ValueError)):
        with pytest.raises(error):
            await soon((await work.delay(kind)).get())
    assert attempts == ["excluded", "unlisted"]


@pytest.mark.parametrize(
    ("options", "attempts"),
    [
        ({"max_retries": 0}, 1),
        ({"max_retries": 1}, 2),
        ({"retry_kwargs": {"max_retries": 2}}, 3),
        ({"max_retries": None}, 8),
        ({"retry_kwargs": {"max_retries": None}}, 8),
    ],
    ids=str,
)
async def test_the_number_of_attempts(queue, worker, options, attempts):
    seen = []

    @queue.task(autoretry_for=(Down,), default_retry_delay=0.001, **options)
    async def work():
        seen.append(1)
        if len(seen) < 8:
            raise Down

    await soon((await work.delay()).get(propagate=False))
    assert len(seen) == attempts


def delays_of(etas, failures):
    return [round(parse_moment(eta) - failed, 1) for eta, failed in zip(etas, failures, strict=True)]


async def test_backoff_doubles_and_nothing_runs_early(queue, worker):
    etas, failures, early = [], [], []

    @queue.task(bind=True, autoretry_for=(Down,), retry_backoff=0.1, retry_backoff_max=0.2, retry_jitter=False)
    async def work(self):
        now = time.time()
        if self.request.eta is not None:
            etas.append(self.request.eta)
            early.append(now < parse_moment(self.request.eta))
        if self.request.retries < 3:
            failures.append(time.time())
            raise Down

    await soon((await work.delay()).get())
    assert delays_of(etas, failures) == [0.1, 0.2, 0.2]
    assert not any(early)


async def test_jitter_stays_below_the_backoff(queue, worker):
    etas, failures = [], []

    @queue.task(bind=True, autoretry_for=(Down,), retry_backoff=0.05, retry_backoff_max=0.1, max_retries=6)
    async def work(self):
        if self.request.eta is not None:
            etas.append(parse_moment(self.request.eta))
        if self.request.retries < 6:
            failures.append(time.time())
            raise Down

    await soon((await work.delay()).get())
    delays = [eta - failed for eta, failed in zip(etas, failures, strict=True)]
    assert all(-0.001 <= delay <= 0.1 + 0.05 for delay in delays)
    assert len({round(delay, 4) for delay in delays}) > 1


@pytest.mark.parametrize("how", ["countdown", "eta", "naive eta", "raised", "retry_kwargs"])
async def test_an_explicit_time_wins_over_the_schedule(queue, worker, how):
    options = {"retry_backoff": 600, "retry_jitter": False}
    if how == "retry_kwargs":
        options = {"autoretry_for": (Down,), "retry_kwargs": {"countdown": 0.05}}

    @queue.task(bind=True, **options)
    async def work(self):
        if self.request.retries:
            return "again"
        soon_after = datetime.now(UTC) + timedelta(seconds=0.05)
        match how:
            case "countdown":
                raise self.retry(countdown=0.05)
            case "eta":
                self.retry(eta=soon_after)
            case "naive eta":
                self.retry(eta=soon_after.replace(tzinfo=None))
            case "raised":
                raise Retry("please", None, 0.05)
        raise Down

    assert await soon((await work.delay()).get()) == "again"


async def test_exhausted_retry_raises_the_given_exception_or_says_so(queue, worker):
    @queue.task(bind=True, max_retries=1, default_retry_delay=0.01)
    async def work(self, how):
        try:
            raise Down("cause")
        except Down as error:
            match how:
                case "with exc":
                    self.retry(exc=error)
                case "without":
                    self.retry()
                case "raised":
                    raise Retry from error
                case "raised with exc":
                    raise Retry(exc=error) from None

    for how in ("with exc", "raised with exc"):
        with pytest.raises(Down, match="cause"):
            await soon((await work.delay(how)).get())
    for how in ("without", "raised"):
        with pytest.raises(MaxRetriesExceededError, match="work"):
            await soon((await work.delay(how)).get())
    with pytest.raises(work.MaxRetriesExceededError):
        await soon((await work.delay("without")).get())


async def test_the_limit_of_one_decision(queue, worker):
    attempts = []

    @queue.task(bind=True, max_retries=1, default_retry_delay=0.001)
    async def work(self):
        attempts.append(1)
        self.retry(max_retries=4)

    with pytest.raises(MaxRetriesExceededError):
        await soon((await work.delay()).get())
    assert len(attempts) == 5


async def test_while_it_waits_its_state_is_retry_with_the_exception(queue, worker):
    @queue.task(autoretry_for=(Down,), default_retry_delay=3600)
    async def work():
        raise Down("for now")

    result = await work.delay()
    update = await reached(result, "RETRY")
    assert isinstance(update.result, Down)
    assert update.result.args == ("for now",)
    assert await result.status() == "RETRY"
    assert isinstance(await result.result(), Down)
    assert "Down: for now" in await result.traceback()
    assert not await result.ready()
    assert await result.date_done() is None
    assert await queue.broker.depth(["celery"]) == {"celery": 1}


async def test_new_arguments(queue, worker):
    seen = []

    @queue.task(bind=True, default_retry_delay=0.01)
    async def work(self, x, y=0):
        seen.append((x, y, list(self.request.args), dict(self.request.kwargs)))
        if self.request.retries == 0:
            self.retry(args=(10,))
        if self.request.retries == 1:
            self.retry(kwargs={"y": 20})
        return x + y

    assert await soon((await work.delay(1, y=2)).get()) == 30
    assert seen == [(1, 2, [1], {"y": 2}), (10, 2, [10], {"y": 2}), (10, 20, [10], {"y": 20})]


async def test_without_throw_the_retry_is_for_the_task_to_raise(queue, worker):
    after = []

    @queue.task(bind=True, default_retry_delay=0.01)
    async def work(self, really):
        if self.request.retries == 0:
            asked = self.retry(throw=False)
            after.append(asked)
            if really:
                raise asked
        return self.request.retries

    assert await soon((await work.delay(True)).get()) == 1
    assert await soon((await work.delay(False)).get()) == 0
    assert [type(asked) for asked in after] == [Retry, Retry]


async def test_what_a_caller_gave_survives(queue, worker):
    seen = []

    @queue.task(bind=True, default_retry_delay=0.01)
    async def work(self):
        request = self.request
        seen.append((request.id, request.root_id, request.headers, request.reply_to, request.expires))
        if request.retries < 2:
            self.retry(headers={"attempt": request.retries})

    await soon((await work.apply_async(headers={"tenant": "a"}, expires=600, root_id="root")).get())
    assert [entry[2] for entry in seen] == [
        {"tenant": "a"}, {"tenant": "a", "attempt": 0}, {"tenant": "a", "attempt": 1},
    ]  # fmt: skip
    assert len({entry[:2] + entry[3:] for entry in seen}) == 1


async def test_a_retry_may_go_to_another_queue(queue, url):
    @queue.task(bind=True, default_retry_delay=0.01)
    async def work(self):
        if self.request.retries == 0:
            self.retry(queue="second chance")
        return self.request.delivery_info["routing_key"]

    async with Worker(queue).running(), Worker(queue, queues=["second chance"]).running():
        assert await soon((await work.delay()).get()) == "second chance"


async def test_two_jobs_of_one_task_retry_independently(queue, worker):
    seen = {"a": [], "b": []}

    @queue.task(bind=True, max_retries=10, default_retry_delay=0.01)
    async def work(self, name, failures):
        seen[name].append(self.request.retries)
        if self.request.retries < failures:
            await asyncio.sleep(0)
            self.retry()
        return name, self.request.retries

    results = [await work.delay("a", 2), await work.delay("b", 5)]
    values = [await soon(result.get()) for result in results]
    assert values == [["a", 2], ["b", 5]]
    assert seen == {"a": [0, 1, 2], "b": [0, 1, 2, 3, 4, 5]}


async def test_a_parked_retry_survives_a_restart_and_holds_no_slot(url):
    def define(queue):
        @queue.task(name="stubborn", bind=True, autoretry_for=(Down,), default_retry_delay=0.5)
        async def stubborn(self):
            if self.request.retries == 0:
                raise Down
            return self.request.retries

        @queue.task(name="other")
        async def other():
            return "meanwhile"

        return stubborn, other

    async with TaskQueue(url) as client:
        stubborn, other = define(client)
        first = TaskQueue(url)
        define(first)
        async with Worker(first, concurrency=1).running():
            result = await stubborn.delay()
            await reached(result, "RETRY")
            assert await soon((await other.delay()).get()) == "meanwhile"
            assert await result.status() == "RETRY"
        assert await client.broker.depth(["celery"]) == {"celery": 1}
        second = TaskQueue(url)
        define(second)
        async with Worker(second).running():
            assert await soon(result.get()) == 1
        assert await client.broker.depth(["celery"]) == {"celery": 0}


IMPOSSIBLE = [
    {"countdown": "5"},
    {"countdown": 1e20},
    {"countdown": float("nan")},
    {"eta": "soon"},
    {"args": 3},
    {"kwargs": {"x": object()}},
    {"expires": "x"},
    {"max_retries": "3"},
    {"headers": 3},
    {"queue": 3},
    {"frob": 1},
]


@pytest.mark.parametrize("options", IMPOSSIBLE, ids=lambda options: next(iter(options)))
async def test_an_impossible_retry_is_a_failure_of_the_task(queue, worker, options):
    @queue.task(bind=True)
    async def work(self):
        self.retry(**options)

    @queue.task
    async def alive():
        return True

    result = await work.delay()
    assert isinstance(await soon(result.get(propagate=False)), Exception)
    assert await result.status() == "FAILURE"
    assert await soon((await alive.delay()).get())
    assert await queue.broker.depth(["celery"]) == {"celery": 0}


async def test_retries_are_logged_with_their_attempt(queue, worker, caplog):
    caplog.set_level(logging.INFO, "aioretryq")

    @queue.task(autoretry_for=(Down,), max_retries=1, default_retry_delay=0.01)
    async def work():
        raise Down("no")

    result = await work.delay()
    await soon(result.get(propagate=False))
    lines = [record for record in caplog.records if result.id in record.getMessage()]
    assert [record.data["attempt"] for record in lines][:1] == [1]
    assert "will be retried" in lines[0].getMessage()
