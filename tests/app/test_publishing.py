"""Sending a task while the broker is away, slow, or refuses."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis

from aioretryq import BrokerError, BrokerUnavailable, ConfigError, NotOpenError, PublishError, TaskQueue
from aioretryq.message import Outgoing
from aioretryq.publishing import NO_REPEAT, Publisher, Terms
from aioretryq.retry import IntervalPolicy
from queues import memory_url, soon, until
from redis_server import RedisServer


def refused_connection():
    error = BrokerUnavailable("Cannot reach the broker.")
    error.maybe_done = False
    return error


class FailingBroker:
    """A broker that is away for its first sends, and notes when each came."""

    def __init__(self, broker, failures, error=None):
        self.broker = broker
        self.failures = failures
        self.error = error or refused_connection()
        self.times = []
        self.tags = []

    def __getattr__(self, name):
        return getattr(self.broker, name)

    async def send(self, messages):
        self.times.append(time.monotonic())
        self.tags += [message.tag for message in messages]
        if len(self.times) <= self.failures:
            raise self.error
        await self.broker.send(messages)

    @property
    def waits(self):
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


@pytest.fixture
async def queue():
    async with TaskQueue(memory_url()) as queue:
        yield queue


def failing(queue, failures, error=None):
    queue.connections.broker = FailingBroker(queue.broker, failures, error)
    return queue.connections.broker


async def test_a_broker_that_comes_back_in_time_gets_the_task_once(queue):
    broker = failing(queue, 2)
    await queue.send_task("x")
    assert len(broker.times) == 3
    assert len(set(broker.tags)) == 1, "a repeated send can be recognised as such"
    assert await queue.broker.depth(["celery"]) == {"celery": 1}


async def test_the_default_policy_gives_up_after_three_retries(queue):
    broker = failing(queue, 99)
    with pytest.raises(PublishError, match="was not sent") as raised:
        await queue.send_task("app.work", task_id="the-id")
    assert "app.work[the-id]" in str(raised.value)
    assert isinstance(raised.value.__cause__, BrokerUnavailable)
    assert len(broker.times) == 4
    assert broker.waits[0] < 0.15
    assert broker.waits[1] >= 0.2
    assert broker.waits[2] >= 0.4


async def test_a_policy_of_the_call(queue):
    broker = failing(queue, 99)
    policy = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2}
    with pytest.raises(PublishError):
        await queue.send_task("x", retry=True, retry_policy=policy)
    assert len(broker.times) == 4
    assert [round(wait, 1) >= least for wait, least in zip(broker.waits, (0.1, 0.2, 0.2), strict=True)] == [True] * 3


async def test_what_a_policy_of_the_call_leaves_out_comes_from_the_settings(queue):
    queue.conf.task_publish_retry_policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
    broker = failing(queue, 99)
    with pytest.raises(PublishError):
        await queue.send_task("x")
    assert len(broker.times) == 2
    with pytest.raises(PublishError):
        await queue.send_task("x", retry_policy={"max_retries": 2})
    assert len(broker.times) == 2 + 3


@pytest.mark.parametrize("how", ["call", "setting"])
async def test_without_retry_there_is_exactly_one_attempt(queue, how):
    broker = failing(queue, 99)
    queue.conf.task_publish_retry = how == "call"
    options = {"retry": False} if how == "call" else {}
    with pytest.raises(PublishError):
        await queue.send_task("x", **options)
    assert len(broker.times) == 1
    with pytest.raises(PublishError):
        await queue.send_task("x", retry=True)
    assert len(broker.times) == 1 + 4


async def test_a_refusal_is_not_retried(queue):
    broker = failing(queue, 99, BrokerError("out of the question"))
    with pytest.raises(PublishError, match="out of the question"):
        await queue.send_task("x")
    assert len(broker.times) == 1


async def test_the_deadline_includes_the_retries(queue):
    broker = failing(queue, 10**6)
    endless = {"max_retries": None, "interval_start": 0.01, "interval_step": 0}
    started = time.monotonic()
    with pytest.raises(PublishError, match=r"within 0\.3 s"):
        await soon(queue.send_task("x", timeout=0.3, retry_policy=endless))
    assert 0.29 < time.monotonic() - started < 5
    assert len(broker.times) > 3


async def test_many_at_once_all_learn_that_the_broker_is_away(queue):
    failing(queue, 10**6)
    outcomes = await asyncio.gather(*[queue.send_task("x", retry=False) for _ in range(500)], return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {PublishError}


async def test_closing_the_queue_ends_a_send_that_hangs(queue):
    entered = asyncio.Event()

    class Hanging(FailingBroker):
        async def send(self, messages):
            entered.set()
            await asyncio.Event().wait()

    queue.connections.broker = Hanging(queue.broker, 0)
    sending = asyncio.create_task(queue.send_task("x"))
    await soon(entered.wait())
    await soon(queue.__aexit__(None, None, None))
    with pytest.raises((PublishError, NotOpenError), match="closed"):
        await soon(sending)
    await queue.__aenter__()


# -- whether what failed may have been sent


async def test_a_lost_reply_is_not_a_broker_that_was_never_reached(queue):
    broker = failing(queue, 1, BrokerUnavailable("no reply"))
    with pytest.raises(PublishError, match="may or may not have been sent: no reply") as raised:
        await queue.send_task("x", retry=False)
    assert raised.value.maybe_sent
    broker.error, broker.failures = refused_connection(), 99
    with pytest.raises(PublishError, match="was not sent: Cannot reach") as raised:
        await queue.send_task("x", retry=False)
    assert not raised.value.maybe_sent


async def test_one_lost_reply_among_the_attempts_is_enough(queue):
    broker = failing(queue, 99, BrokerUnavailable("no reply"))
    sending = asyncio.create_task(queue.send_task("x"))
    await until(lambda: broker.times)
    broker.error = refused_connection()
    with pytest.raises(PublishError, match="may or may not have been sent: Cannot reach") as raised:
        await soon(sending)
    assert raised.value.maybe_sent


async def test_what_was_refused_was_not_sent(queue):
    failing(queue, 99, BrokerError("out of the question"))
    with pytest.raises(PublishError, match="was not sent: out of the question") as raised:
        await queue.send_task("x")
    assert not raised.value.maybe_sent


class HangingBroker(FailingBroker):
    """Takes a batch and says no more of it."""

    async def send(self, messages):
        self.times.append(time.monotonic())
        await asyncio.Event().wait()


@pytest.fixture
def hanging(queue):
    queue.connections.broker = HangingBroker(queue.broker, 0)
    return queue.connections.broker


async def test_the_deadline_of_one_that_is_on_its_way_and_of_one_that_is_not(queue, hanging):
    first = asyncio.create_task(queue.send_task("x", timeout=0.2))
    await until(lambda: hanging.times)
    second = asyncio.create_task(queue.send_task("x", timeout=0.05))
    with pytest.raises(PublishError, match=r"may or may not have been sent: .*within 0\.2 s") as raised:
        await soon(first)
    assert raised.value.maybe_sent
    with pytest.raises(PublishError, match=r"was not sent: .*within 0\.05 s") as raised:
        await soon(second)
    assert not raised.value.maybe_sent


async def test_closing_the_queue_with_one_on_its_way_and_one_that_is_not(queue, hanging):
    first = asyncio.create_task(queue.send_task("x"))
    await until(lambda: hanging.times)
    second = asyncio.create_task(queue.send_task("x"))
    await asyncio.sleep(0)
    await soon(queue.__aexit__(None, None, None))
    outcomes = await soon(asyncio.gather(first, second, return_exceptions=True))
    assert [(type(outcome), outcome.maybe_sent) for outcome in outcomes] == [
        (PublishError, True),
        (PublishError, False),
    ]
    await queue.__aenter__()


# -- waiting for a broker that is gone


async def test_with_wait_a_sending_outlasts_its_policy(queue):
    broker = failing(queue, 8)
    await soon(queue.send_task("x", retry=False, wait=60))
    assert len(broker.times) == 9
    assert len(set(broker.tags)) == 1
    assert await queue.broker.depth(["celery"]) == {"celery": 1}


async def test_wait_as_a_setting_and_its_end(queue):
    queue.conf.task_publish_wait = 0.3
    broker = failing(queue, 10**6)
    started = time.monotonic()
    with pytest.raises(PublishError, match="was not sent: Cannot reach the broker") as raised:
        await soon(queue.send_task("x", retry=False))
    assert 0.3 <= time.monotonic() - started < 5
    assert isinstance(raised.value.__cause__, BrokerUnavailable)
    assert len(broker.times) > 2
    with pytest.raises(PublishError):
        await soon(queue.send_task("x", retry=False, wait=0))


async def test_wait_does_not_help_against_a_refusal(queue):
    broker = failing(queue, 99, BrokerError("out of the question"))
    with pytest.raises(PublishError, match="out of the question"):
        await soon(queue.send_task("x", wait=60))
    assert len(broker.times) == 1


async def test_many_that_wait_go_on_at_once_and_have_not_hammered_the_server(queue):
    broker = failing(queue, 10**6)
    sending = [asyncio.create_task(queue.send_task("x", retry=False, wait=60)) for _ in range(300)]
    await until(lambda: len(broker.times) > 6)
    asked, broker.failures = len(broker.times), 0
    started = time.monotonic()
    await soon(asyncio.gather(*sending))
    assert time.monotonic() - started < 2
    assert asked < 20
    assert await queue.broker.depth(["celery"]) == {"celery": 300}


async def test_cancelled_while_waiting(queue):
    broker = failing(queue, 10**6)
    sending = [asyncio.create_task(queue.send_task("x", retry=False, wait=60)) for _ in range(3)]
    await until(lambda: len(broker.times) > 3)
    for task in sending[:2]:
        task.cancel()
        await asyncio.wait([task])
    broker.failures = 0
    await soon(sending[2])
    assert await queue.broker.depth(["celery"]) == {"celery": 1}


@pytest.mark.parametrize("options", [{"wait": -1}, {"timeout": -1}, {"wait": "5"}, {"timeout": float("nan")}])
async def test_times_that_are_none(queue, options):
    with pytest.raises(ConfigError, match=r"not a time|number of seconds"):
        await queue.send_task("x", **options)


# -- brokers recognise a repetition for a minute


class Doubtful:
    """A server whose answers are scripted; time passes between them as said."""

    def __init__(self, *script):
        self.script = list(script)
        self.began = []
        self.now = 1000.0
        self.publisher = Publisher(self.send, "the broker", clock=lambda: self.now)

    async def send(self, messages):
        self.began.append(self.now - 1000)
        passing, error = self.script.pop(0) if self.script else (0, None)
        self.now += passing
        if error is not None:
            raise error
        return [None] * len(messages)

    async def publish(self, policy, wait):
        running = asyncio.create_task(self.publisher.run())
        try:
            message = Outgoing("celery", b"{}", "tag")
            await soon(self.publisher.publish(message, "Task x[1]", Terms(policy, 600.0, wait)))
        finally:
            running.cancel()
            await asyncio.wait([running])


LOST = BrokerUnavailable("no reply")
AT_ONCE = IntervalPolicy(max_retries=9, interval_start=0, interval_step=0)


@pytest.fixture(params=["by its policy", "while it waits"])
def how(request):
    return (AT_ONCE, 0.0) if request.param == "by its policy" else (IntervalPolicy(max_retries=0), 600.0)


async def test_what_may_have_been_sent_is_not_repeated_when_the_broker_has_forgotten_it(how):
    server = Doubtful((5, LOST), (NO_REPEAT - 6, refused_connection()), (2, refused_connection()))
    with pytest.raises(PublishError, match=r"may or may not .*: Cannot reach .*not tried again after 50 s") as raised:
        await server.publish(*how)
    assert raised.value.maybe_sent
    assert isinstance(raised.value.__cause__, BrokerUnavailable)
    assert server.began == [0, 5, NO_REPEAT - 1], "counted from when the first began"


async def test_within_that_time_it_is_repeated(how):
    server = Doubtful((5, LOST), (NO_REPEAT - 6, LOST))
    await server.publish(*how)
    assert server.began == [0, 5, NO_REPEAT - 1]


async def test_what_was_certainly_not_sent_is_tried_for_as_long_as_one_likes(how):
    server = Doubtful((500, refused_connection()), (500, refused_connection()))
    await server.publish(*how)
    assert server.began == [0, 500, 1000]


# -- a real server


@pytest.fixture
def server():
    server = RedisServer()
    server.start()
    yield server
    server.close()


async def test_a_stopped_server(server):
    async with TaskQueue(server.url) as queue:
        await queue.send_task("x")
        server.stop()
        with pytest.raises(PublishError):
            await soon(queue.send_task("x"))  # perhaps on the old connection, whose end was not noticed yet
        with pytest.raises(PublishError, match="was not sent") as raised:
            await soon(queue.send_task("x"))
        assert not raised.value.maybe_sent
        assert isinstance(raised.value.__cause__, BrokerUnavailable)
        assert isinstance(raised.value.__cause__.__cause__, (OSError, redis.RedisError))
        server.start()
        await soon(queue.send_task("x"))
        assert await queue.broker.depth(["celery"]) == {"celery": 1}


async def test_a_server_that_comes_back_within_the_policy(server):
    async with TaskQueue(server.url) as queue:
        server.stop()
        policy = {"max_retries": None, "interval_start": 0.05, "interval_step": 0}
        sending = asyncio.create_task(queue.send_task("x", retry_policy=policy))
        await asyncio.to_thread(server.start)
        await soon(sending)
        assert await queue.broker.depth(["celery"]) == {"celery": 1}


@pytest.fixture
def admin(redis_url):
    """A client for holding back the server's answers to everything that writes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client
        client.client_unpause()


async def test_a_server_that_hangs_ends_at_the_deadline(redis_url, admin):
    async with TaskQueue(redis_url) as queue:
        await queue.send_task("x")
        admin.client_pause(60_000, all=False)
        with pytest.raises(PublishError, match="may or may not"):
            await soon(queue.send_task("x", timeout=0.2))
        admin.client_unpause()
        await soon(queue.send_task("x"))


async def test_cancelling_a_delay_while_the_broker_hangs(redis_url, admin):
    async with TaskQueue(redis_url) as queue:
        await queue.send_task("x")
        admin.client_pause(60_000, all=False)
        sending = [asyncio.create_task(queue.send_task("x")) for _ in range(3)]
        await asyncio.sleep(0)
        for task in sending:
            task.cancel()
        outcomes = await soon(asyncio.gather(*sending, return_exceptions=True))
        assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 3
        admin.client_unpause()
        result = await soon(queue.send_task("x"))
        assert result.id


async def test_producers_that_wait_see_no_error_in_an_outage(server):
    async with TaskQueue(server.url) as queue:
        await queue.send_task("x")
        server.stop()
        sending = [asyncio.create_task(queue.send_task("x", retry=False, wait=60)) for _ in range(100)]
        await asyncio.wait(sending, timeout=1)
        assert not any(task.done() for task in sending)
        await asyncio.to_thread(server.start)
        started = time.monotonic()
        await soon(asyncio.gather(*sending))
        assert time.monotonic() - started < 2
        assert await queue.broker.depth(["celery"]) == {"celery": 100}


async def test_a_server_that_is_away_when_opening_is_an_error_at_once(server):
    server.stop()
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1"):
        async with TaskQueue(server.url):
            pass
