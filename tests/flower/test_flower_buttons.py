"""Flower's buttons do to our worker what they say."""

from __future__ import annotations

import pytest
from flower_fleet import OURS, QUEUES, our_worker, until

pytestmark = pytest.mark.xdist_group("flower")


def most_at_once(pages):
    pages.open_worker(OURS)
    return int(pages.values("pool")["Max concurrency"])


def test_pool_grows_and_shrinks(pages):
    before = most_at_once(pages)
    pages.fill("#pool-size", 5)
    assert pages.press("#worker-pool-grow") == f"Growing '{OURS}' worker's pool by 5"
    assert most_at_once(pages) == before + 5
    pages.fill("#pool-size", 3)
    assert pages.press("#worker-pool-shrink") == f"Shrinking '{OURS}' worker's pool by 3"
    assert most_at_once(pages) == before + 2


def test_autoscale(pages):
    pages.open_worker(OURS)
    pages.fill("#min-autoscale", 2)
    pages.fill("#max-autoscale", 15)
    assert pages.press("#worker-pool-autoscale") == f"Autoscaling '{OURS}' worker (min=2, max=15)"
    assert most_at_once(pages) == 15


def test_queues_are_added_and_cancelled(pages, fleet):
    pages.open_worker(OURS, "queues")
    pages.fill("#add-consumer-name", "sale")
    assert pages.press("#worker-add-consumer") == "add consumer sale"
    pages.open_worker(OURS)
    assert list(pages.values("queues")) == [QUEUES[OURS], "sale"]
    task_id = fleet.post("/task/send-task/shop.price", args=["tea"], queue="sale")["task-id"]
    assert fleet.task_is(task_id, "SUCCESS")["worker"] == OURS

    assert pages.press("#worker-cancel-consumer-sale") == "no longer consuming from sale"
    pages.open_worker(OURS)
    assert list(pages.values("queues")) == [QUEUES[OURS]]


def limits_of(pages, task):
    """The row of a task in the table of limits: its first cell, and a selector of what is in it."""
    pages.open_worker(OURS, "limits")
    names = [row[0] for row in pages.rows("#tab-limits")]
    number = next(number for number, name in enumerate(names, 1) if name.split()[0] == task)
    return names[number - 1], f"#limits-table tr:nth-child({number})"


def test_rate_limit(pages, fleet):
    _, row = limits_of(pages, "shop.price")
    pages.fill(f"{row} input[placeholder=Rate]", 500)
    assert pages.press(f"{row} button[id^=task-rate-limit]") == "new rate limit set successfully"
    assert limits_of(pages, "shop.price")[0] == "shop.price [rate_limit=500]"


@pytest.mark.parametrize(("kind", "error"), [("soft", "SoftTimeLimitExceeded"), ("hard", "TimeLimitExceeded")])
def test_time_limits(pages, fleet, kind, error):
    _, row = limits_of(pages, "shop.count")
    pages.fill(f"{row} input[placeholder=Seconds]", 1)
    assert pages.press(f"{row} button[id^=task-timeout-{kind}]") == "time limits set successfully"
    failed = fleet.task_is(fleet.send(OURS, "shop.count", args=[60]), "FAILURE")
    assert failed["exception"].startswith(error)


def test_a_running_task_is_terminated(pages, fleet):
    task_id = fleet.send(OURS, "shop.pack", args=[60])
    fleet.task_is(task_id, "STARTED")
    pages.open(f"/task/{task_id}")
    assert pages.press("#task-terminate") == f"Revoked '{task_id}'"
    assert fleet.task_is(task_id, "REVOKED")["worker"] == OURS
    assert fleet.get(f"/task/result/{task_id}")["state"] == "REVOKED"
    pages.open(f"/task/{task_id}")
    assert pages.text(".detail-row .badge") == "REVOKED"


def test_a_waiting_task_is_revoked(pages, fleet):
    task_id = fleet.send(OURS, "shop.ship", args=[1, 600])
    fleet.task_is(task_id, "RETRY")
    pages.open(f"/task/{task_id}")
    assert pages.press("#task-revoke") == f"Revoked '{task_id}'"
    until(lambda: task_id in fleet.worker(OURS)["revoked"])
    until(lambda: fleet.get(f"/task/result/{task_id}")["state"] == "REVOKED")
    pages.open_worker(OURS, "tasks")
    assert [task_id] in pages.rows("#tab-tasks")


def test_there_is_no_pool_to_restart(pages):
    pages.open_worker(OURS)
    pages.click("#worker-group")
    said = pages.press("#worker-pool-restart")
    assert said.startswith(f"Failed to restart the '{OURS}' pool: there is no pool to restart: stop the worker")


def test_shutdown(pages, fleet):
    name = "leaving@shop"
    with our_worker(name, "elsewhere", {"FLOWER_REDIS": fleet.redis_url}) as worker:
        until(lambda: fleet.get("/workers", status=1).get(name))
        pages.open_worker(name)
        pages.click("#worker-group")
        assert pages.press("#worker-shutdown") == "Shutting down!"
        assert worker.wait() == 0
    until(lambda: fleet.get("/workers", status=1)[name] is False)
    pages.open("/")
    until(lambda: [row[1] for row in pages.rows("#workers-table") if row[0] == name] == ["Offline"])
