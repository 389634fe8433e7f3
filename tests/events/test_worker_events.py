"""What a worker tells, on each broker: Celery's events with Celery's fields, and nothing where nobody asked."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
from golden_events import GOLDEN
from watching import watching

from aioretryq import EncodeError, Ignore, Reject, Retry, TaskQueue, Worker
from aioretryq.protocol.result import ResultDocument
from queues import memory_url, soon, until


def fields_of(case):
    """Those that Celery gives to events of a type, besides those that all have."""
    body = GOLDEN[case]["decoded_body"]
    found = body[0] if isinstance(body, list) else body
    return found.keys() - {"type", "hostname", "timestamp", "utcoffset", "pid", "clock"}


async def add(x, y):
    return x + y


def plain(self, percent):
    self.send_event("task-progress", percent=percent)
    return percent


async def fail():
    raise ValueError("bad", 42)


async def flaky(self):
    if self.request.retries < 1:
        raise Retry(exc=KeyError("k"), when=0.01)


async def reject(requeue):
    raise Reject("no", requeue=requeue)


async def ignore():
    raise Ignore


async def endless():
    await asyncio.Event().wait()


OPTIONS = {"plain": {"bind": True}, "flaky": {"bind": True}}


def define(queue):
    for function in (add, plain, fail, flaky, reject, ignore, endless):
        queue.task(name=function.__name__, **OPTIONS.get(function.__name__, {}))(function)
    queue.task(name="early", acks_late=False)(endless)
    queue.task(name="secret", send_events=False)(add)


@pytest.fixture
async def queue(url):
    async with TaskQueue(url, worker_send_task_events=True, unknown_task_delay=0.05) as queue:
        define(queue)
        yield queue


@pytest.fixture
async def told(queue):
    async with watching(queue) as told, Worker(queue, name="w1@here").running():
        yield told


async def test_success(queue, told):
    result = await queue.send_task("add", [1, 2])
    await told.wait(result.id, "task-succeeded")
    received, started, succeeded = told.of(result.id)
    assert (received.type, received.fields["args"], received.fields["kwargs"]) == ("task-received", "(1, 2)", "{}")
    assert (received.fields["name"], received.fields["root_id"], received.fields["retries"]) == ("add", result.id, 0)
    assert received.fields.keys() == fields_of("task-received (in task.multi list)")
    assert (started.type, started.fields.keys()) == ("task-started", {"uuid"})
    assert (succeeded.fields["result"], succeeded.fields["runtime"] < 5) == ("3", True)
    assert succeeded.fields.keys() == fields_of("task-succeeded (in task.multi list)")
    assert {event.hostname for event in told} == {"w1@here"}


async def test_failure(queue, told):
    result = await queue.send_task("fail")
    failed = await told.wait(result.id, "task-failed")
    assert failed.fields.keys() == fields_of("task-failed (in task.multi list)")
    assert failed.fields["exception"] == "ValueError('bad', 42)"
    assert "in fail" in failed.fields["traceback"]


async def test_each_attempt_is_received(queue, told):
    result = await queue.send_task("flaky")
    await told.wait(result.id, "task-succeeded")
    assert told.types(result.id) == [
        "task-received",
        "task-started",
        "task-retried",
        "task-received",
        "task-started",
        "task-succeeded",
    ]
    retried = told.of(result.id)[2]
    assert retried.fields.keys() == fields_of("task-retried (in task.multi list)")
    assert retried.fields["exception"] == "KeyError('k')"
    again = told.of(result.id)[3].fields
    assert again["retries"] == 1
    assert again["eta"] is not None


async def test_events_of_a_tasks_own_come_from_any_thread(queue, told):
    result = await queue.send_task("plain", [50])
    progress = await told.wait(result.id, "task-progress")
    assert (progress.fields["percent"], progress.hostname) == (50, "w1@here")
    await told.wait(result.id, "task-succeeded")


async def test_rejection(queue, told):
    result = await queue.send_task("reject", [False])
    rejected = await told.wait(result.id, "task-rejected")
    assert rejected.fields == {"uuid": result.id, "requeue": False}
    assert told.types(result.id)[-2:] == [
        "task-failed",
        "task-rejected",
    ]  # it has ended, which "rejected" does not say
    again = await queue.send_task("reject", [True])
    assert (await told.wait(again.id, "task-rejected")).fields["requeue"] is True
    await queue.revoke(again.id)
    revoked = await told.wait(again.id, "task-revoked")
    assert (revoked.fields["expired"], revoked.fields["terminated"]) == (False, False)


async def test_what_is_not_to_run_is_received_and_revoked(queue, told):
    result = await queue.send_task("add", [1, 2], expires=-1)
    revoked = await told.wait(result.id, "task-revoked")
    assert told.types(result.id) == ["task-received", "task-revoked"]
    assert revoked.fields.keys() == fields_of("task-revoked (in task.multi list)")
    assert revoked.fields == {"uuid": result.id, "terminated": False, "signum": None, "expired": True}


async def test_termination(queue, told):
    result = await queue.send_task("endless")
    await told.wait(result.id, "task-started")
    await queue.revoke(result.id, terminate=True)
    revoked = await told.wait(result.id, "task-revoked")
    assert revoked.fields == {"uuid": result.id, "terminated": True, "signum": 15, "expired": False}


async def test_a_message_that_is_not_due_is_received_once_when_it_is(queue, told):
    """Also one that another client has put into the queue with its eta, as Celery's do."""
    eta = datetime.now(UTC) + timedelta(seconds=0.3)
    result = await queue.send_task("add", [1, 2], eta=eta)
    await told.wait(result.id, "task-succeeded")
    assert told.types(result.id) == ["task-received", "task-started", "task-succeeded"]
    received = told.of(result.id)[0]
    assert received.timestamp >= eta.timestamp() - 0.1
    assert received.fields["eta"] == eta.isoformat()


async def test_an_ignored_task_says_nothing_at_its_end(queue, told):
    ignored = await queue.send_task("ignore")
    await told.wait(ignored.id, "task-started")
    other = await queue.send_task("add", [1, 2])
    await told.wait(other.id, "task-succeeded")
    assert told.types(ignored.id) == ["task-received", "task-started"]


async def test_tasks_may_be_silent(queue, told):
    assert await soon((await queue.send_task("secret", [0, 1])).get()) == 1
    other = await queue.send_task("add", [1, 2])
    await told.wait(other.id, "task-succeeded")
    assert {event.uuid for event in told} == {other.id, None}


async def test_what_is_handed_back_at_the_stop_was_cancelled(queue):
    async with watching(queue) as told:
        async with Worker(queue, name="w1@here", grace=0).running():
            endless, early = await queue.send_task("endless"), await queue.send_task("early")
            await told.wait(endless.id, "task-started")
            await told.wait(early.id, "task-started")
        cancelled = await told.wait(endless.id, "task-cancelled")
        assert cancelled.fields == {"uuid": endless.id}
        revoked = await told.wait(early.id, "task-revoked")  # acknowledged before it ran: it does not come back
        assert revoked.fields["terminated"] is True
        offline = await told.of_worker("worker-offline")
    assert offline.clock == max(event.clock for event in told)
    assert offline.fields["processed"] == 2
    await queue.broker.purge("celery")


async def test_a_worker_tells_of_itself(url):
    async with TaskQueue(url, worker_heartbeat_interval=0.05) as queue:
        define(queue)
        async with watching(queue) as told:
            async with Worker(queue, name="w1@here").running():
                online = await told.of_worker("worker-online")
                assert online.fields.keys() == fields_of("worker-online")
                assert (online.fields["freq"], online.fields["sw_ident"]) == (0.05, "aioretryq")
                assert await soon((await queue.send_task("add", [1, 2])).get()) == 3
                endless = await queue.send_task("endless")
                async with asyncio.timeout(10):
                    while (await told.of_worker("worker-heartbeat")).fields["active"] != 1:
                        told.clear()
                heartbeat = await told.of_worker("worker-heartbeat")
                assert heartbeat.fields.keys() == fields_of("worker-heartbeat")
                assert len(heartbeat.fields["loadavg"]) == 3
                await queue.revoke(endless.id, terminate=True)
            offline = await told.of_worker("worker-offline")
            assert (offline.fields["active"], offline.fields["processed"]) == (0, 2)
    assert all(event.type.startswith("worker-") for event in told)  # nobody asked for others


async def test_a_worker_may_be_silent():
    async with TaskQueue(memory_url(), worker_heartbeat_interval=0) as queue:
        define(queue)
        async with watching(queue) as told, Worker(queue).running():
            result = await queue.send_task("plain", [50])
            await told.wait(result.id, "task-progress")  # a task's own is sent all the same
            await soon(result.get())
    assert [event.type for event in told] == ["task-progress"]


async def test_events_are_switched_from_afar(url):
    async with TaskQueue(url) as queue, watching(queue) as told, Worker(queue, name="w1@here").running():
        define(queue)
        assert await soon((await queue.send_task("add", [1, 2])).get()) == 3
        assert await queue.control.enable_events() == {"w1@here": {"ok": "task events enabled"}}
        seen = await queue.send_task("add", [1, 2])
        await told.wait(seen.id, "task-succeeded")
        assert await queue.control.disable_events() == {"w1@here": {"ok": "task events disabled"}}
        assert await soon((await queue.send_task("add", [1, 2])).get()) == 3
        assert {event.uuid for event in told} == {seen.id, None}


async def test_a_message_that_outlived_its_worker_tells_the_stored_result(url):
    """A worker has stored the result and died before it acknowledged: it could not tell either."""
    async with TaskQueue(url, worker_send_task_events=True, lease=0.5) as queue:
        define(queue)
        result = await queue.send_task("add", [1, 2])
        (taken,) = (await queue.broker.claim(["celery"], limit=1)).deliveries
        async with Worker(queue).running():
            await queue.results.store(
                [queue.results.record(ResultDocument(task_id=result.id, status="SUCCESS", result=3))]
            )
            async with watching(queue) as told:
                succeeded = await told.wait(result.id, "task-succeeded")
                assert succeeded.fields == {"uuid": result.id, "result": "3", "runtime": None}
                assert told.types(result.id) == ["task-received", "task-succeeded"]
    assert taken.deliveries == 1


async def test_an_unknown_task_is_told_of_when_it_is_given_up(url):
    async with TaskQueue(
        url, worker_send_task_events=True, unknown_task_timeout=0.1, unknown_task_delay=0.2
    ) as queue:
        async with watching(queue) as told, Worker(queue).running():
            result = await queue.send_task("nowhere", [7])
            failed = await told.wait(result.id, "task-failed")
        assert told.types(result.id) == ["task-received", "task-failed"]
        assert "NotRegistered" in failed.fields["exception"]
        assert told.of(result.id)[0].fields["name"] == "nowhere"


async def test_odd_messages_harm_no_worker(queue, told, caplog):
    """Names and ids that nobody expects; what cannot be told is dropped."""
    caplog.set_level(logging.CRITICAL)
    long = "x" * 100_000
    for name, task_id in (("add", long), (long, "short"), ("\x1b[31m", "color")):
        await queue.send_task(name, [1, 2], task_id=task_id, expires=-1)
    result = await queue.send_task("add", [1, 2])
    await told.wait(result.id, "task-succeeded")
    await told.wait("color", "task-revoked")


async def test_events_that_json_cannot_hold_are_the_tasks_error(queue, told):
    @queue.task(name="odd", bind=True)
    async def odd(self):
        with pytest.raises(EncodeError):
            self.send_event("task-odd", value=object())
        return True

    assert await soon((await queue.send_task("odd")).get()) is True


async def test_outside_of_a_worker_a_task_sends_nothing():
    queue = TaskQueue(memory_url())  # not even open
    define(queue)
    plain = queue.find_task("plain")
    assert plain(1) == 1
    assert await (await plain.apply([2])).get() == 2


async def test_a_crowd_of_tasks_is_told_in_few_messages(url):
    async with TaskQueue(url, worker_send_task_events=True) as queue:
        define(queue)
        async with watching(queue) as told:
            results = [await queue.send_task("add", [n, 1]) for n in range(200)]
            async with Worker(queue).running():
                await soon(asyncio.gather(*[result.get() for result in results]))
            await told.of_worker("worker-offline")
            await until(lambda: sum(event.type == "task-succeeded" for event in told) == 200)
        assert queue.connections.events.dropped == 0
