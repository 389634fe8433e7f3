"""What calls put on the wire equals what a Celery client puts there (captured in golden/)."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from aioretryq import TaskQueue
from aioretryq.calling import ORIGIN, REPLY_TO
from queues import memory_url

CASES = json.loads((Path(__file__).parents[1] / "golden" / "task_messages_v2.json").read_text())
ETA = datetime(2030, 1, 2, 3, 4, 5)
MOMENTS = [datetime(2030, 1, 1, tzinfo=UTC), date(2030, 1, 1), time(1, 2), b"\x00bytes", [1]]


def golden(name):
    """The task message of a case."""
    entries = [entry for key in CASES[name]["keys"].values() if key["type"] == "list" for entry in key["entries"]]
    assert len(entries) == 1
    return copy.deepcopy(entries[0]["raw"])


@pytest.fixture
async def queue():
    async with TaskQueue(memory_url(), accept_content=("json", "pickle")) as queue:
        yield queue


@pytest.fixture
def add(queue):
    @queue.task(name="labapp.add")
    async def add(x, y):
        return x + y

    return add


async def sent(queue, name="celery"):
    claim = await queue.broker.claim([name], limit=2)
    assert len(claim.deliveries) == 1
    return json.loads(claim.deliveries[0].body)


def body_of(message):
    data = base64.b64decode(message["body"])
    pickled = message["content-type"] == "application/x-python-serialize"
    return pickle.loads(data) if pickled else json.loads(data)


def same(ours, theirs):
    """Equal but for ids, clocks, and who sent it."""
    ours, theirs = json.loads(json.dumps(ours)), json.loads(json.dumps(theirs))
    assert body_of(ours) == body_of(theirs)
    for message in (ours, theirs):
        task_id = message["headers"]["id"]
        assert message["headers"].pop("root_id") == task_id
        assert message["properties"].pop("correlation_id") == task_id
        for name in ("body",):
            del message[name]
        for name in ("id", "origin"):
            assert message["headers"].pop(name)
        for name in ("reply_to", "delivery_tag"):
            assert message["properties"].pop(name)
    assert ours == theirs


async def test_delay(queue, add):
    result = await add.delay(2, 3)
    message = await sent(queue)
    assert message["headers"]["id"] == result.id == message["headers"]["root_id"]
    assert message["headers"]["origin"] == ORIGIN
    assert message["properties"]["reply_to"] == REPLY_TO
    same(message, golden("delay"))


async def test_kwargs_shadow_and_headers(queue, add):
    await add.apply_async(kwargs={"x": 2, "y": 3}, shadow="shadowed", headers={"my-header": "v"})
    same(await sent(queue), golden("kwargs"))


def near(text, seconds):
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo is not None
    distance = (moment - datetime.now(UTC)).total_seconds() - seconds
    return abs(distance) < 5


async def test_countdown(queue, add):
    await add.apply_async((2, 3), countdown=60)
    ours, theirs = await sent(queue), golden("countdown")
    assert near(ours["headers"].pop("eta"), 60)
    assert theirs["headers"].pop("eta").endswith("+00:00")
    same(ours, theirs)


@pytest.mark.parametrize(("case", "eta"), [("eta_naive", ETA), ("eta_aware", ETA.replace(tzinfo=UTC))])
async def test_eta(queue, add, case, eta):
    await add.apply_async((2, 3), eta=eta)
    same(await sent(queue), golden(case))


@pytest.mark.parametrize("expires", [120, 120.0, timedelta(minutes=2)])
async def test_expires(queue, add, expires):
    await add.apply_async((2, 3), expires=expires)
    ours, theirs = await sent(queue), golden("expires")
    assert near(ours["headers"].pop("expires"), 120)
    del theirs["headers"]["expires"]
    assert ours["properties"]["expiration"] == "120000"
    same(ours, theirs)


async def test_expires_as_a_point_in_time(queue, add):
    await add.apply_async((2, 3), expires=datetime.now(UTC) + timedelta(hours=1))
    ours, theirs = await sent(queue), golden("expires_dt")
    assert near(ours["headers"].pop("expires"), 3600)
    del theirs["headers"]["expires"]
    assert 3_595_000 < int(ours["properties"].pop("expiration")) <= 3_600_000
    del theirs["properties"]["expiration"]
    same(ours, theirs)


@pytest.mark.parametrize("priority", [0, 1, 3, 5, 6, 9])
async def test_priority(queue, add, priority):
    await add.apply_async((2, 3), priority=priority)
    same(await sent(queue), golden(f"priority_{priority}"))


async def test_limits(queue, add):
    await add.apply_async((2, 3), time_limit=30, soft_time_limit=20, ignore_result=True)
    same(await sent(queue), golden("limits"))


async def test_queue(queue, add):
    await add.apply_async((2, 3), queue="other")
    same(await sent(queue, "other"), golden("queue"))


async def test_send_task(queue):
    result = await queue.send_task("labapp.remote", [1], {"a": "é"}, task_id="custom-id-1", reply_to="rq")
    assert result.id == "custom-id-1"
    message = await sent(queue)
    assert message["headers"]["id"] == "custom-id-1"
    assert message["properties"]["reply_to"] == "rq"
    same(message, golden("send_task"))


async def test_pickle(queue, add):
    await add.apply_async((2, 3), serializer="pickle")
    message = await sent(queue)
    args, kwargs, embed = body_of(message)
    assert (list(args), kwargs, set(embed.values())) == ([2, 3], {}, {None})
    message["body"] = golden("pickle")["body"]
    same(message, golden("pickle"))


async def test_types_beyond_json(queue, add):
    await add.delay(Decimal("1.5"), UUID(int=5))
    same(await sent(queue), golden("jsontypes"))
    await queue.send_task("labapp.t", MOMENTS)
    ours, theirs = await sent(queue), golden("jsontypes2")
    # For people only, and Celery writes the control characters of bytes as they are.
    assert "datetime.date(2030, 1, 1)" in ours["headers"].pop("argsrepr")
    del theirs["headers"]["argsrepr"]
    same(ours, theirs)


async def test_options_of_the_task_are_on_the_wire_too(queue):
    @queue.task(name="labapp.add", time_limit=30, soft_time_limit=20, ignore_result=True)
    async def add(x, y):
        return x + y

    await add.delay(2, 3)
    same(await sent(queue), golden("limits"))
