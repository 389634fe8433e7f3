"""Messages and results of real Celery systems that break naive readers, each against our worker on Redis."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import pytest
import redis
from protocol.golden_data import load

from aioretryq import TaskQueue, Worker
from aioretryq.brokers.redis import RedisBroker
from aioretryq.config import Settings
from aioretryq.message import Outgoing
from aioretryq.protocol.control import Form, decode_reply
from aioretryq.protocol.moments import parse_moment
from aioretryq.protocol.result import ResultDocument
from queues import soon

MISSING = object()
PATIENCE = 20.0
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[TaskQueue]:
    async with TaskQueue(redis_url) as queue:

        @queue.task(name="show", bind=True)
        async def show(self, *args, **kwargs):
            request = self.request
            return {
                "args": list(args),
                "kwargs": kwargs,
                "queue": request.delivery_info["routing_key"],
                "priority": request.delivery_info["priority"],
                "limits": [request.time_limit, request.soft_time_limit],
                "family": [request.root_id, request.parent_id],
            }

        yield queue


@pytest.fixture
async def worker(queue: TaskQueue) -> AsyncIterator[Worker]:
    async with Worker(queue).running() as worker:
        yield worker


@pytest.fixture
def twelve_hours_ahead(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of UTC: a time that is read in the wrong zone is far away."""
    monkeypatch.setenv("TZ", "Etc/GMT-12")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def changed(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**fields, **changes}.items() if value is not MISSING}


def message(task: str = "show", embed: Any = EMBED, properties: Any = (), args: Any = (), **headers: Any) -> bytes:
    """What `send_task` has sent, with a new id and these changes; MISSING takes something away."""
    raw = copy.deepcopy(load("task_messages_v2")["send_task"]["keys"]["celery"]["entries"][0]["raw"])
    task_id = headers.pop("id", None) or str(uuid.uuid4())
    raw["headers"] = changed(raw["headers"], {"task": task, "id": task_id, "root_id": task_id, **headers})
    raw["properties"] = changed(raw["properties"], {"delivery_tag": str(uuid.uuid4()), **dict(properties)})
    raw["body"] = base64.b64encode(json.dumps([list(args), {}, embed]).encode()).decode()
    return json.dumps(raw).encode()


async def outcome(queue: TaskQueue, server: redis.Redis, sent: bytes, key: str = "celery") -> Any:
    server.lpush(key, sent)
    return await queue.AsyncResult(json.loads(sent)["headers"]["id"]).get(timeout=PATIENCE)


@pytest.mark.parametrize("priority", [None, MISSING], ids=["null", "missing"])
async def test_1_no_priority_is_priority_0(queue, worker, server, priority):
    assert (await outcome(queue, server, message(properties={"priority": priority})))["priority"] == 0


@pytest.mark.parametrize("chain", [[], None, MISSING], ids=["empty", "null", "missing"])
async def test_2_no_chain_is_written_in_several_ways(queue, worker, server, chain):
    assert (await outcome(queue, server, message(embed=changed(EMBED, {"chain": chain}))))["args"] == []
    assert (await outcome(queue, server, message(embed={}, args=[1])))["args"] == [1]


@pytest.mark.parametrize("limits", [None, MISSING, [None, None]], ids=["null", "missing", "nulls"])
async def test_3_no_time_limits_are_written_in_several_ways(queue, worker, server, limits):
    assert (await outcome(queue, server, message(timelimit=limits)))["limits"] == [None, None]


@pytest.mark.parametrize("children", [None, [], [[["me", None], None]]], ids=["null", "none", "itself"])
async def test_4_a_result_may_have_no_children_or_be_its_own_child(queue, children):
    document = ResultDocument(task_id="me", status="SUCCESS", result=5, children=children)
    await queue.results.store([queue.results.record(document)])
    result = queue.AsyncResult("me")
    assert await result.children() == []
    assert await soon(result.get_leaf()) == 5
    assert [node.id async for _, node in result.iterdeps()] == ["me"]


async def test_5_messages_of_queues_that_are_not_consumed_stay_where_they_are(queue, server):
    server.lpush("theirs", message())
    async with Worker(queue, queues=["ours"]).running():
        await outcome(queue, server, message(), "ours")
    assert (server.llen("theirs"), server.hlen("unacked")) == (1, 0)


class TestRetries:
    async def test_6_the_limit_is_that_of_the_task_here_not_what_the_message_says(self, queue, worker, server):
        @queue.task(
            name="limited", autoretry_for=(OSError,), max_retries=2, default_retry_delay=0, retry_backoff=False
        )
        async def limited():
            raise OSError(5, "again")

        @queue.task(name="patient", bind=True, max_retries=9, default_retry_delay=0)
        async def patient(self):
            if self.request.retries < 8:
                raise self.retry()
            return self.request.retries

        with pytest.raises(OSError, match="again"):
            await outcome(queue, server, message("limited", retries=7))
        assert await outcome(queue, server, message("patient", retries=7)) == 8

    @pytest.mark.parametrize(
        "expires",
        [
            "2130-01-31T12:00:00+00:00",
            "2130-01-31T12:00:00.123456",
            "2130-01-31T12:00:00Z",
            "2130-01-31 12:00:00+05:30",
        ],
    )
    async def test_14_expires_is_passed_on_as_it_came(self, queue, worker, server, expires):
        @queue.task(name="again", bind=True, default_retry_delay=0)
        async def again(self):
            if self.request.retries < 2:
                raise self.retry()
            return self.request.expires

        assert await outcome(queue, server, message("again", expires=expires)) == expires

    async def test_unknown_headers_survive(self, queue, worker, server):
        @queue.task(name="again", bind=True, default_retry_delay=0)
        async def again(self):
            if self.request.retries < 2:
                raise self.retry()
            return self.request.headers

        added = {"tenant": {"id": 7}, "traceparent": "00-abc", "periodic_task_name": "nightly", "lang": "go"}
        found = await outcome(queue, server, message("again", **added))
        assert {name: found[name] for name in added} == added


class TestFamily:
    async def test_7_ids_that_a_signature_leaves_out_are_filled_in(self, queue, worker, server):
        options = {
            "task_id": "linked",
            "root_id": None,
            "parent_id": None,
            "reply_to": "somebody",
            "group_index": None,
        }
        link = {
            "task": "show",
            "args": [],
            "kwargs": {},
            "options": options,
            "subtask_type": None,
            "immutable": False,
        }
        await outcome(queue, server, message(embed={**EMBED, "callbacks": [link]}, id="caller", root_id="eldest"))
        assert (await queue.AsyncResult("linked").get(timeout=PATIENCE))["family"] == ["eldest", "caller"]

    async def test_8_the_body_of_a_chord_has_its_group_but_is_no_part_of_it(self, queue, worker, server):
        await outcome(queue, server, message(id="body", group="g", group_index=None))
        assert json.loads(server.get("celery-task-meta-body"))["group_id"] == "g"
        assert not server.keys("celery-taskset-meta-*")


class TestKeys:
    async def test_9_names_are_read_from_the_right(self, redis_url, server):
        """A key is prefix, queue, separator, priority; each part may look like another one."""
        settings = Settings()
        settings.update(broker_transport_options={"global_keyprefix": "app\x06\x163:"})
        names = ["plain", "with\x06\x16inside", "app\x06\x163:again"]
        async with RedisBroker.from_url(redis_url, settings) as broker:
            for name in names:
                for priority in (0, 9):
                    await broker.send([Outgoing(name, message(), str(uuid.uuid4()), priority)])
            found = [await broker.claim([name], limit=10) for name in names]
        assert [[each.queue for each in claim.deliveries] for claim in found] == [[name] * 2 for name in names]
        assert all(key.startswith(b"app\x06\x163:") for key in server.scan_iter())

    async def test_9_with_celery_on_the_other_side(self, redis_url):
        prefix = {"global_keyprefix": "app:"}
        options = {"broker_transport_options": prefix, "result_backend_transport_options": prefix}
        async with TaskQueue(redis_url, task_default_queue="deep.queue", **options) as queue:

            @queue.task(name="where", bind=True)
            async def where(self):
                return self.request.delivery_info["routing_key"]

            async with Worker(queue).running():
                with celery.Celery(broker=redis_url, set_as_current=False) as app:
                    app.conf.update(options)
                    sent = [app.send_task("where", queue="deep.queue", priority=priority) for priority in range(10)]
                values = [await queue.AsyncResult(each.id).get(timeout=PATIENCE) for each in sent]
        assert values == ["deep.queue"] * 10

    async def test_10_the_protocol_of_redis_does_not_depend_on_the_version_of_the_driver(self, queue, worker, server):
        """redis-py 8 speaks RESP3 unless it is told not to: some answers have other types then."""

        @queue.task(name="bytes")
        async def work(value):
            return value

        assert await (await work.delay(b"\xff\x00")).get(timeout=PATIENCE) == b"\xff\x00"
        ours = {each["name"]: each["resp"] for each in server.client_list() if each["name"].startswith("aioretryq")}
        assert {"aioretryq:results", "aioretryq:backend"} <= ours.keys()
        heard_by = {"aioretryq:results", "aioretryq:wait"}  # which ask for RESP3 themselves: answers beside messages
        assert {protocol for name, protocol in ours.items() if name not in heard_by} == {"2"}


def test_11_replies_to_commands_say_no_time_until_which_they_count():
    replies = [found["reply"] for found in load("control_messages").values() if "reply" in found]
    assert replies
    for found in replies:
        headers = found["raw"]["headers"]
        assert "expires" not in headers
        reply = decode_reply(json.dumps(found["raw"]).encode(), Form())
        assert (reply.ticket, reply.clock, reply.answers) == (headers["ticket"], headers["clock"], found["body"])


async def test_12_each_thread_of_a_client_has_a_channel_of_its_own(queue, worker, redis_url):
    with celery.Celery(broker=redis_url, backend=redis_url, set_as_current=False) as app:
        app.conf.result_backend_thread_safe = True
        names, values = set(), []

        def call(number: int) -> None:
            names.add(app.thread_oid)
            values.append(app.send_task("show", (number,)).get(timeout=PATIENCE)["args"])

        threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        app.backend.result_consumer.stop()
        app.backend.result_consumer._pubsub = None  # or destructors of results would connect again
        app.backend.client.connection_pool.disconnect()
    assert len(names) == 3
    assert sorted(values) == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("header", "of_task", "stored"),
    [(None, False, True), (None, True, False), (MISSING, True, False), (True, False, False), (False, True, True)],
)
async def test_13_without_a_word_in_the_message_the_task_says_whether_its_result_is_kept(
    queue, server, header, of_task, stored
):
    ran = asyncio.Event()

    @queue.task(name="kept", ignore_result=of_task)
    async def kept():
        ran.set()

    sent = message("kept", ignore_result=header, id="kept-id")
    async with Worker(queue).running():
        server.lpush("celery", sent)
        await soon(ran.wait())
    assert bool(server.exists("celery-task-meta-kept-id")) == stored


class TestTimes:
    async def test_a_naive_eta_means_utc(self, queue, worker, server, twelve_hours_ahead):
        past, future = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (-5, 600))
        later = message(eta=future.replace(tzinfo=None).isoformat(), id="later")
        server.lpush("celery", later)
        assert await outcome(queue, server, message(eta=past.replace(tzinfo=None).isoformat()))
        assert await queue.AsyncResult("later").status() == "PENDING"

    @pytest.mark.parametrize("expires", ["2020-01-01T00:00:00", "2020-01-01T00:00:00+00:00"])
    async def test_what_has_expired_is_revoked(self, queue, worker, server, expires):
        with pytest.raises(Exception, match="expired") as raised:
            await outcome(queue, server, message(expires=expires))
        assert type(raised.value).__name__ == "TaskRevokedError"


class TestProtocol1:
    async def run(self, queue: TaskQueue, server: redis.Redis, case: str, **changes: Any) -> Any:
        (entry,) = load("task_messages_v1")[case]["keys"]["celery"]["entries"]
        body = {**entry["decoded_body"], **changes}
        encoded = base64.b64encode(json.dumps(body).encode()).decode()
        server.lpush("celery", json.dumps({**entry["raw"], "body": encoded}))
        return await queue.AsyncResult(body["id"]).get(timeout=PATIENCE)

    async def test_what_an_old_client_has_sent_runs(self, queue, worker, server):
        @queue.task(name="labapp.add")
        async def add(x, y):
            return x + y

        body = load("task_messages_v1")["v1_delay"]["keys"]["celery"]["entries"][0]["decoded_body"]
        assert await self.run(queue, server, "v1_delay") == sum(body["args"])

    async def test_its_callbacks_and_limits(self, queue, worker, server):
        called = asyncio.Event()

        @queue.task(name="labapp.add", bind=True)
        async def add(self, x, y):
            return [x + y, self.request.time_limit]

        @queue.task(name="labapp.cb")
        async def callback(value):
            if value == [5, 30]:
                called.set()

        later = {"eta": "2020-01-01T00:00:00+00:00", "expires": "2130-01-01T00:00:00+00:00"}
        assert await self.run(queue, server, "v1_countdown_link", **later) == [5, 30]
        await soon(called.wait())

    @pytest.mark.parametrize(("utc", "zone"), [(True, "+00:00"), (False, "+12:00")])
    async def test_times_without_a_zone_are_local_unless_it_says_utc(
        self, queue, worker, server, twelve_hours_ahead, utc, zone
    ):
        @queue.task(name="labapp.add", bind=True)
        async def add(self, x, y):
            return parse_moment(self.request.expires)

        noon = "2130-01-01T12:00:00"
        found = await self.run(queue, server, "v1_delay", utc=utc, expires=noon)
        assert found == datetime.fromisoformat(noon + zone).timestamp()
