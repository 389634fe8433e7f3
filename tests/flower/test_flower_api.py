"""Flower's HTTP interface, and what Prometheus reads, have our worker as they have Celery's."""

from __future__ import annotations

import re

import pytest
from flower_fleet import CELERY, OURS, QUEUES, TASKS, flower, states_of, until

pytestmark = pytest.mark.xdist_group("flower")

WORKERS = (CELERY, OURS)
SAMPLE = re.compile(r"^(flower_\w+)\{(.*)\} (\S+)$", re.MULTILINE)


def samples(fleet, worker):
    """{(metric, task or type): value} of one worker."""
    found = {}
    for name, labels, value in SAMPLE.findall(fleet.http.get("/metrics").raise_for_status().text):
        label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if label["worker"] == worker:
            found[name, label.get("type"), label.get("task")] = float(value)
    return found


def test_both_workers_are_listed_with_all_that_flower_asks_for(fleet):
    assert fleet.get("/workers", status=1) == {CELERY: True, OURS: True}
    found = fleet.listed
    assert set(found) == set(WORKERS)
    assert {"stats", "active_queues", "registered", "conf"} <= found[OURS].keys() & found[CELERY].keys()
    for name in WORKERS:
        assert [queue["name"] for queue in found[name]["active_queues"]] == [QUEUES[name]]
        assert {task.split()[0] for task in found[name]["registered"]} >= {name for name, _ in TASKS.values()}


def test_our_worker_has_the_same_facts_of_itself(fleet):
    ours, celerys = fleet.worker(OURS), fleet.worker(CELERY)
    assert ours.keys() == celerys.keys()
    stats = ours["stats"]
    assert stats.keys() >= celerys["stats"].keys()
    assert stats["broker"].keys() >= celerys["stats"]["broker"].keys()
    assert stats["rusage"].keys() == celerys["stats"]["rusage"].keys()
    assert stats["pool"].keys() >= celerys["stats"]["pool"].keys()
    assert (stats["broker"]["transport"], stats["broker"]["ssl"]) == ("redis", False)
    assert stats["pool"]["implementation"] == "aioretryq.worker:asyncio"
    assert stats["pool"]["processes"] == [stats["pid"]]
    assert stats["total"]["shop.price"] >= 1
    assert ours["active_queues"][0].keys() == celerys["active_queues"][0].keys()
    assert ours["conf"]["broker_url"] == fleet.redis_url


def test_what_is_not_due_is_scheduled(fleet):
    ids = {worker: fleet.send(worker, "shop.price", args=["salt"], countdown=600) for worker in WORKERS}
    found = {}
    for worker in WORKERS:
        until(lambda worker=worker: scheduled(fleet, worker, ids[worker]))
        found[worker] = scheduled(fleet, worker, ids[worker])
    assert found[OURS].keys() == found[CELERY].keys()
    assert found[OURS]["request"].keys() == found[CELERY]["request"].keys()
    assert found[OURS]["eta"][:16] == found[CELERY]["eta"][:16] or found[OURS]["eta"] > found[CELERY]["eta"]


def scheduled(fleet, worker, task_id):
    return next((each for each in fleet.worker(worker)["scheduled"] if each["request"]["id"] == task_id), None)


@pytest.mark.parametrize("worker", WORKERS)
def test_tasks_of_every_outcome(fleet, worker):
    listed = fleet.get("/tasks", workername=worker)
    for outcome, task_id in fleet.ids[worker].items():
        task = listed[task_id]
        assert task["worker"] == worker
        assert task["name"] == TASKS[outcome][0]
        assert task["state"] in states_of(worker, outcome), outcome
    ids = fleet.ids[worker]
    assert 0 < listed[ids["priced"]]["runtime"] < 20
    assert listed[ids["failed"]]["exception"] == "ValueError('order 17 is not covered')"
    assert "order 17 is not covered" in listed[ids["failed"]]["traceback"]
    assert "order 18 is a joke" in listed[ids["refused"]]["exception"] or worker == CELERY  # not in its threads
    assert listed[ids["shipped"]]["retries"] == 1
    assert "the carrier does not answer" in listed[ids["waiting"]]["exception"]
    assert all(listed[ids[each]]["revoked"] for each in ("revoked", "expired"))


@pytest.mark.parametrize("worker", WORKERS)
def test_one_task(fleet, worker):
    task = fleet.get(f"/task/info/{fleet.ids[worker]['priced']}")
    assert (task["args"], task["kwargs"]) == ("['tea']", "{'pieces': 3}")
    assert task["result"] == "{'article': 'tea', 'cents': 750}"
    assert (task["exchange"], task["routing_key"]) == ("", QUEUES[worker])
    assert task["sent"]  # told once it is sent, when a worker may have it already
    assert task["received"] <= task["started"] <= task["succeeded"]
    other = fleet.get(f"/task/info/{fleet.ids[CELERY if worker == OURS else OURS]['priced']}")
    assert {name for name, value in task.items() if value is None} == {
        name for name, value in other.items() if value is None
    }


@pytest.mark.parametrize("worker", WORKERS)
def test_results(fleet, worker):
    ids = fleet.ids[worker]
    priced = fleet.get(f"/task/result/{ids['priced']}")
    assert (priced["state"], priced["result"]) == ("SUCCESS", {"article": "tea", "cents": 750})
    failed = fleet.get(f"/task/result/{ids['failed']}")
    assert (failed["state"], failed["result"]) == ("FAILURE", "ValueError('order 17 is not covered')")
    assert fleet.get(f"/task/result/{ids['expired']}")["state"] == "REVOKED"


def test_flower_waits_for_a_task_of_our_worker(fleet):
    applied = fleet.post("/task/apply/shop.price", args=["rice"], queue=QUEUES[OURS], timeout=20)
    assert (applied["state"], applied["result"]) == ("SUCCESS", {"article": "rice", "cents": 250})


def test_lengths_of_queues(fleet):
    found = {each["name"]: each["messages"] for each in fleet.get("/queues/length")["active_queues"]}
    assert found.keys() >= set(QUEUES.values())
    assert found[QUEUES[OURS]] == 0


def test_metrics_of_our_worker_are_those_of_celerys(fleet):
    ours, celerys = samples(fleet, OURS), samples(fleet, CELERY)
    # Celery's worker looks whether a task is revoked before it tells that it received it.
    more = {
        ("flower_events_total", "task-received", "shop.pack"),
        ("flower_events_created", "task-received", "shop.pack"),
    }
    gauge = ("flower_worker_prefetched_tasks", None, "shop.pack")
    assert ours.keys() - celerys.keys() - {("flower_events_total", None, None)} <= {*more, gauge}
    for kind in ("received", "started", "retried", "succeeded"):
        assert ours["flower_events_total", f"task-{kind}", "shop.ship"] >= 1
    assert ours["flower_events_total", "task-failed", "shop.pay"] == 1
    assert ours["flower_events_total", "task-revoked", "shop.pack"] >= 2
    assert ours["flower_events_total", "task-rejected", "shop.refuse"] == 1
    assert ours["flower_worker_online", None, None] == 1
    assert ours["flower_task_runtime_seconds_count", None, "shop.price"] >= 1
    assert ours["flower_task_runtime_seconds_sum", None, "shop.price"] > 0
    assert ("flower_task_prefetch_time_seconds", None, "shop.price") in ours
    # Whatever was received was started, revoked or given up: nothing seems to wait for ever.
    assert {value for (name, *_), value in ours.items() if name == "flower_worker_prefetched_tasks"} == {0}


def test_metrics_of_what_runs(fleet):
    running = ("flower_worker_number_of_currently_executing_tasks", None, None)
    before = samples(fleet, OURS)[running]
    task_id = fleet.send(OURS, "shop.pack", args=[60])
    until(lambda: samples(fleet, OURS)[running] == before + 1)
    assert [task["id"] for task in fleet.worker(OURS)["active"] if task["id"] == task_id] == [task_id]
    fleet.post(f"/task/revoke/{task_id}?terminate=1")
    fleet.task_is(task_id, "REVOKED")
    until(lambda: samples(fleet, OURS)[running] == before)


def test_without_an_application(fleet):
    with flower("--broker", fleet.redis_url, redis_url=fleet.redis_url, env={}) as plain:
        until(lambda: all(plain.get("/workers", status=1).get(worker) for worker in WORKERS))
        assert plain.worker(OURS).keys() == plain.worker(CELERY).keys()
        assert plain.complaints() == []
        # Flower wants to know a task before it sets its limits.
        refused = plain.http.post("/api/task/rate-limit/shop.price", data={"workername": OURS, "ratelimit": 5})
        assert (refused.status_code, refused.text) == (404, "Unknown task 'shop.price'")
