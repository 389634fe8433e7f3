"""What a worker answers, compared with what Celery's did; on every broker what has to do with one."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime

import pytest
from control_lab import NODE, Lab, golden, running

from queues import memory_url, soon

REPLIES = golden("control_replies")


async def ask(lab, method, /, **arguments):
    replies = await lab.client.control.broadcast(method, arguments, timeout=10)
    assert list(replies) == [NODE]
    return replies[NODE]


async def test_tasks_that_run_wait_and_are_parked(lab):
    """active, reserved, scheduled and query_task, in one go: the broker has a part in it."""
    await lab.worker(concurrency=3, threads=1)
    runs = await lab.client.send_task("lab.sleep", [60])
    parked = await lab.client.send_task("lab.add", [1, 2], countdown=600)
    await running(lab, runs.id)
    await running(lab, parked.id)

    (active,) = await ask(lab, "active")
    assert active.keys() == REPLIES["active"][NODE][0].keys()
    assert (active["id"], active["args"], active["kwargs"]) == (runs.id, [60], {})
    assert active["delivery_info"] == REPLIES["active"][NODE][0]["delivery_info"]
    assert (active["hostname"], active["worker_pid"], active["acknowledged"]) == (NODE, os.getpid(), False)
    assert (await ask(lab, "active", safe=True))[0]["args"] == "(60,)"
    assert (await ask(lab, "dump_active")) == [active]
    assert await ask(lab, "reserved") == []

    (scheduled,) = await ask(lab, "scheduled")
    assert scheduled.keys() == REPLIES["scheduled"][NODE][0].keys()
    assert scheduled["request"].keys() == REPLIES["scheduled"][NODE][0]["request"].keys()
    assert (datetime.fromisoformat(scheduled["eta"]) - datetime.now(UTC)).total_seconds() > 500

    found = await ask(lab, "query_task", ids=[runs.id, parked.id, "unknown"])
    assert found == {runs.id: ["active", active], parked.id: ["scheduled", scheduled["request"]]}
    assert await ask(lab, "query_task", ids=runs.id) == {runs.id: ["active", active]}
    await lab.client.control.terminate([runs.id, parked.id])


async def test_tasks_that_wait_for_a_thread_are_reserved(memory_lab):
    go = asyncio.Event()

    def define(queue):
        @queue.task(name="lab.plain")
        def plain():
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result(20)

    loop = asyncio.get_running_loop()
    await memory_lab.worker(define=define, threads=1)
    results = [await memory_lab.client.send_task("lab.plain") for _ in range(2)]
    async with asyncio.timeout(20):
        while not (await ask(memory_lab, "reserved") and await ask(memory_lab, "active")):
            await asyncio.sleep(0.001)
    (reserved,) = await ask(memory_lab, "reserved")
    assert reserved.keys() == REPLIES["reserved"][NODE][0].keys()
    assert (reserved["time_start"], reserved["worker_pid"]) == (None, None)
    go.set()
    for result in results:
        await soon(result.get())


async def test_stats(memory_lab):
    await memory_lab.worker(concurrency=7, threads=3)
    await soon((await memory_lab.client.send_task("lab.add", [1, 2])).get())
    stats = await ask(memory_lab, "stats")
    theirs = REPLIES["stats"][NODE]
    assert stats.keys() >= theirs.keys()
    assert stats["broker"].keys() == theirs["broker"].keys()
    assert stats["pool"].keys() >= theirs["pool"].keys() - {"writes"}
    assert stats["rusage"].keys() == theirs["rusage"].keys()
    assert (stats["total"], stats["pid"]) == ({"lab.add": 1}, os.getpid())
    assert (stats["pool"]["max-concurrency"], stats["prefetch_count"]) == (7, 7)
    assert int(stats["clock"]) > 0


async def test_registered(memory_lab):
    def define(queue):
        @queue.task(name="lab.slow", rate_limit="10/m")
        async def slow(): ...

        @queue.task(name="celery.internal")
        async def internal(): ...

    await memory_lab.worker(define=define)
    assert await ask(memory_lab, "registered") == ["lab.slow [rate_limit=10/m]"]
    assert await ask(memory_lab, "registered", builtins=True) == ["celery.internal", "lab.slow [rate_limit=10/m]"]
    assert await ask(memory_lab, "registered", taskinfoitems=["max_retries"]) == ["lab.slow [max_retries=3]"]
    assert await ask(memory_lab, "dump_tasks", taskinfoitems=["app", "_app", "__class__"]) == ["lab.slow"]


async def test_settings_are_shown_without_secrets(memory_lab):
    secret = "hunter2"
    conf = {
        "broker_transport_options": {
            "password": secret,
            "nested": [f"redis://me:{secret}@host"],
            "global_keyprefix": "p",
        },
        "task_routes": {"a.*": "b"},
        "security_key_password": secret,
    }
    worker = await memory_lab.worker(conf=conf)
    worker.queue.conf.result_backend = f"redis://:{secret}@host/1"
    shown = await ask(memory_lab, "conf")
    assert secret not in str(shown)
    assert shown["result_backend"] == "redis://:********@host/1"
    assert shown["broker_transport_options"]["global_keyprefix"] == "p"
    assert shown["task_routes"] == {"a.*": "b"}
    assert "lease" not in shown
    everything = await ask(memory_lab, "conf", with_defaults=True)
    assert everything["lease"] == 30.0
    assert secret not in str(everything)
    report = (await ask(memory_lab, "report"))["ok"]
    assert "software -> aioretryq" in report
    assert secret not in report


async def test_small_questions(memory_lab):
    await memory_lab.worker()
    assert await ask(memory_lab, "ping") == REPLIES["ping"][NODE]
    assert (await ask(memory_lab, "clock")).keys() == {"clock"}
    sample = await ask(memory_lab, "memsample")
    assert float(sample.removesuffix("MB")) > 1
    assert sample in await ask(memory_lab, "memdump", samples=3)
    assert "not supported" in (await ask(memory_lab, "objgraph"))["error"]


async def test_errors_are_said_as_celery_says_them(memory_lab, caplog):
    await memory_lab.worker()
    assert await ask(memory_lab, "no_such_command") == REPLIES["unknown2"][0]["w2@lab"]
    missing = REPLIES["badargs"][0]["w2@lab"]["error"]
    said = (await ask(memory_lab, "rate_limit"))["error"]
    assert said == "rate_limit needs task_name and rate_limit (missing 2 required positional arguments)"
    assert "missing 2 required positional arguments" in missing
    assert "has failed" in caplog.text


@pytest.mark.parametrize(
    ("method", "arguments", "said"),
    [
        ("rate_limit", {"task_name": "lab.add"}, "rate_limit needs task_name and rate_limit (missing 1 "),
        ("revoke", {}, "revoke needs task_id"),
        ("revoke", {"task_id": []}, "give the ids of the tasks to revoke"),
        ("revoke", {"task_id": ""}, "give the ids of the tasks to revoke"),
        ("revoke", {"task_id": 5}, "the id of a task is a text, not 5"),
        ("revoke_by_stamped_headers", {"headers": {}}, "give the stamps"),
        ("terminate", {"task_id": "x"}, "terminate needs signal and task_id"),
        ("terminate", {"task_id": "x", "signal": "SIGNOPE"}, "signal 'SIGNOPE' is unknown here"),
        ("terminate", {"task_id": "x", "signal": 4711}, "signal 4711 is unknown here"),
        ("terminate", {"task_id": "x", "signal": ["TERM"]}, "signal ['TERM'] is unknown here"),
        ("revoke", {"task_id": "x", "terminate": True, "signal": "NOPE"}, "signal 'NOPE' is unknown here"),
        ("pool_grow", {"n": "x"}, "n is a whole number, not 'x'"),
        ("pool_shrink", {"n": 1.5}, "n is a whole number, not 1.5"),
        ("autoscale", {"max": "many"}, "max is a whole number"),
        ("add_consumer", {}, "add_consumer needs queue"),
        ("time_limit", {}, "time_limit needs task_name"),
        ("time_limit", {"task_name": "lab.add"}, "time_limit needs soft or hard"),
        ("time_limit", {"task_name": "lab.add", "soft": "x"}, "soft is a number of seconds, not 'x'"),
        ("time_limit", {"task_name": "lab.add", "soft": 20, "hard": 10}, "soft_time_limit 20.0 is longer than time_"),
    ],
)
async def test_mistakes_are_answered_in_words(memory_lab, caplog, method, arguments, said):
    await memory_lab.worker()
    reply = await ask(memory_lab, method, **arguments)
    assert reply["error"].partition(said)[0] in ("", "The new limits: ")
    assert said in reply["error"]
    assert "has failed" in caplog.text
    assert "By remote control" not in caplog.text


@pytest.mark.parametrize("signal", ["SIGTERM", "TERM", "kill", 9, None])
async def test_signals_that_there_are(memory_lab, signal):
    await memory_lab.worker()
    assert await ask(memory_lab, "terminate", task_id="x", signal=signal) == {"ok": "terminate: tasks unknown"}


async def test_time_limits_of_plain_functions_have_no_effect(memory_lab, caplog):
    def define(queue):
        @queue.task(name="lab.plain")
        def plain(): ...

    await memory_lab.worker(define=define)
    said = (await ask(memory_lab, "time_limit", task_name="lab.plain", soft=1, hard=2))["ok"]
    assert said.startswith("time limits set successfully, but they have no effect on lab.plain: it is a plain func")
    assert "Time limits were set, but they have no effect on lab.plain" in caplog.text
    reply = await ask(memory_lab, "time_limit", task_name="lab.plain", soft=None, hard=None)
    assert reply == {"ok": "time limits set successfully"}


@pytest.mark.parametrize(
    ("name", "method", "arguments"),
    [
        ("rate_limit", "rate_limit", {"task_name": "lab.add", "rate_limit": "10/m"}),
        ("rate_limit_bad", "rate_limit", {"task_name": "lab.add", "rate_limit": "abc"}),
        ("rate_limit_reset", "rate_limit", {"task_name": "lab.add", "rate_limit": 0}),
        ("time_limit", "time_limit", {"task_name": "lab.add", "soft": 10, "hard": 20}),
        ("time_limit_unknown", "time_limit", {"task_name": "nope", "soft": 10, "hard": 20}),
        ("pool_grow", "pool_grow", {"n": 1}),
        ("pool_shrink", "pool_shrink", {}),
        ("election", "election", {"id": "1", "topic": "t", "action": None}),
        ("heartbeat", "heartbeat", {}),
        ("add_consumer", "add_consumer", {"queue": "extraq"}),
        ("cancel_consumer", "cancel_consumer", {"queue": "extraq"}),
    ],
)
async def test_replies_are_celerys(memory_lab, name, method, arguments):
    await memory_lab.worker()
    assert await ask(memory_lab, method, **arguments) == REPLIES[name][0][NODE]


async def test_events_are_switched(memory_lab):
    worker = await memory_lab.worker()
    assert await ask(memory_lab, "enable_events") == {"ok": "task events enabled"}
    assert await ask(memory_lab, "enable_events") == REPLIES["enable_events"][0][NODE]
    assert (await ask(memory_lab, "stats"))["events"]["enabled"]
    assert await ask(memory_lab, "disable_events") == {"ok": "task events disabled"}
    assert await ask(memory_lab, "disable_events") == REPLIES["disable_events"][0][NODE]
    assert worker.name == NODE


async def test_concurrency_follows(memory_lab):
    await memory_lab.worker(concurrency=1)
    first, second = [await memory_lab.client.send_task("lab.sleep", [60]) for _ in range(2)]
    await running(memory_lab, first.id)
    assert len(await ask(memory_lab, "active")) == 1
    await ask(memory_lab, "pool_grow", n=1)
    await running(memory_lab, second.id)
    assert (await ask(memory_lab, "stats"))["pool"]["max-concurrency"] == 2
    await ask(memory_lab, "pool_shrink", n=50)
    assert (await ask(memory_lab, "stats"))["pool"]["max-concurrency"] == 1
    assert await ask(memory_lab, "autoscale", max=9, min=2) == {"ok": "autoscale now max=9 min=2"}
    assert (await ask(memory_lab, "stats"))["pool"]["max-concurrency"] == 9
    assert "error" in await ask(memory_lab, "autoscale", max=1, min=2)
    assert "stop the worker" in (await ask(memory_lab, "pool_restart"))["error"]
    await memory_lab.client.control.terminate([first.id, second.id])


async def test_queues_are_added_and_cancelled(lab):
    await lab.worker()
    waiting = await lab.client.send_task("lab.add", [1, 2], queue="extra")
    assert await ask(lab, "add_consumer", queue="extra") == {"ok": "add consumer extra"}
    assert await soon(waiting.get()) == 3
    queues = await ask(lab, "active_queues")
    assert [queue["name"] for queue in queues] == ["celery", "extra"]
    assert queues[0] == REPLIES["active_queues"][NODE][0]
    for name in ("extra", "celery"):
        await ask(lab, "cancel_consumer", queue=name)
    assert await ask(lab, "active_queues") == []
    left = await lab.client.send_task("lab.add", [1, 2], queue="extra")
    await ask(lab, "add_consumer", queue="celery")
    assert await soon((await lab.client.send_task("lab.add", [2, 2])).get()) == 4
    assert await lab.client.broker.depth(["extra"]) == {"extra": 1}
    await left.revoke()


async def test_a_queue_of_an_exchange(lab):
    await lab.worker()
    reply = await ask(
        lab, "add_consumer", queue="news", exchange="topics", exchange_type="topic", routing_key="news.#"
    )
    assert reply == {"ok": "add consumer news"}
    assert [found.queue for found in await lab.client.broker.bindings("topics")] == ["news"]
    shown = {queue["name"]: queue for queue in await ask(lab, "active_queues")}["news"]
    assert (shown["exchange"]["name"], shown["exchange"]["type"], shown["routing_key"]) == (
        "topics",
        "topic",
        "news.#",
    )


async def test_shutdown_is_graceful(memory_lab, caplog):
    caplog.set_level(logging.INFO)
    worker = await memory_lab.worker()
    result = await memory_lab.client.send_task("lab.sleep", [0.05])
    await running(memory_lab, result.id)
    assert await ask(memory_lab, "shutdown") == {"ok": "shutting down"}
    assert await soon(result.get()) == "slept"
    assert worker.stopping
    assert worker.dismissed
    assert "By remote control: this worker stops (gen" in caplog.text


async def test_remote_control_can_be_switched_off(memory_lab):
    await memory_lab.worker(conf={"worker_enable_remote_control": False})
    assert await memory_lab.client.control.ping() == {}


async def test_another_name_is_another_channel():
    async with Lab(memory_url()).open() as lab:
        await lab.worker(conf={"control_exchange": "mine"})
        assert await lab.client.control.ping() == {}
        lab.client.conf.control_exchange = "mine"
        assert await ask(lab, "ping") == {"ok": "pong"}


async def test_large_arguments_are_not_carried_around(memory_lab):
    await memory_lab.worker()
    parked = await memory_lab.client.send_task("lab.add", ["x" * 100_000, 1], countdown=60)
    await running(memory_lab, parked.id)
    assert len(str(await ask(memory_lab, "scheduled"))) < 3000
    await parked.revoke()
