"""Flower's pages show our worker and its tasks as they show Celery's."""

from __future__ import annotations

import pytest
from flower_browser import TABS
from flower_fleet import CELERY, OURS, QUEUES, TASKS, states_of, until

pytestmark = pytest.mark.xdist_group("flower")

NOTHING = ("", "None", "undefined", "null", "—", "NaN")


@pytest.fixture(autouse=True)
def scripts_run_well(pages):
    pages.severe()
    yield
    assert pages.severe() == []


def numbers(row):
    return [int(cell.replace(",", "")) for cell in row]


def test_overview(pages):
    pages.open("/")
    until(lambda: len(pages.rows("#workers-table")) >= 2 and "Updated" in pages.text("#workers-refresh-status"))
    rows = {row[0].replace("\n", ""): row[1:] for row in pages.rows("#workers-table")}
    assert int(pages.text("#workers-online")) >= 2
    for name in (CELERY, OURS):
        status, *counts, load = rows[name]
        _, processed, failed, succeeded = numbers(counts)
        assert status == "Online"
        assert processed >= 7
        assert failed >= 2
        assert succeeded >= 2
        assert len(load.split()) == 3


def test_worker_page_has_a_value_wherever_celerys_has_one(pages):
    shown = {}
    for name in (CELERY, OURS):
        pages.open_worker(name)
        shown[name] = {tab: pages.values(tab) for tab in TABS}
    for tab, theirs in shown[CELERY].items():
        ours = shown[OURS][tab]
        missing = {key for key, value in theirs.items() if value not in NOTHING and ours.get(key, "-") in NOTHING}
        assert missing == set(), tab
        assert "undefined" not in str(ours)
        # Those have names of queues, tasks and settings.
        assert tab in ("queues", "tasks", "limits", "config") or theirs.keys() <= ours.keys()


def test_worker_page_of_ours(pages, fleet):
    pages.open_worker(OURS)
    stats = fleet.worker(OURS)["stats"]
    pool = pages.values("pool")
    assert pool["Implementation"] == "Aioretryq.worker:asyncio"
    assert pool["Max concurrency"] == pool["Prefetch Count"] == str(stats["prefetch_count"])
    assert pool["Worker PID"] == pool["Processes"] == str(stats["pid"])
    broker = pages.values("broker")
    assert (broker["Hostname"], broker["Transport"], broker["SSL"]) == ("127.0.0.1", "redis", "False")
    assert pages.values("queues")[QUEUES[OURS]].startswith(f"False True {QUEUES[OURS]} False")
    pages.open_tab("tasks")
    tasks = pages.rows("#tab-tasks")
    assert ["shop.price", str(stats["total"]["shop.price"])] in pages.rows("#tab-tasks table:nth-of-type(1)")
    assert [fleet.ids[OURS]["revoked"]] in tasks
    assert {name.split()[0] for name in pages.values("limits")} >= {name for name, _ in TASKS.values()}
    assert pages.values("config")["broker_url"] == fleet.redis_url
    assert pages.values("system")["utime"].split()[-1] in ("ms", "s")
    other = pages.values("other")
    assert (other["sw_ident"], other["events"]) == ("aioretryq", "{'enabled': True, 'dropped': 0}")


def test_tasks_page(pages, fleet):
    pages.open("/tasks")
    pages.driver.execute_script("$('#tasks-table').DataTable().page.len(100).draw()")
    every = {task_id for ids in fleet.ids.values() for task_id in ids.values()}
    until(lambda: every <= {row[1] for row in pages.rows("#tasks-table") if len(row) > 1})
    rows = {row[1]: row for row in pages.rows("#tasks-table")}
    for worker, ids in fleet.ids.items():
        for outcome, task_id in ids.items():
            name, _, state, received, runtime, on = rows[task_id]
            assert (name, on.replace("\n", "")) == (TASKS[outcome][0], worker)
            assert state in states_of(worker, outcome)
            # Celery's worker looks whether a task is revoked before it tells that it received it.
            assert received or (worker, state) == (CELERY, "REVOKED")
            assert bool(runtime) == (state == "SUCCESS")


@pytest.mark.parametrize("worker", [CELERY, OURS])
def test_task_page(pages, fleet, worker):
    pages.open(f"/task/{fleet.ids[worker]['priced']}")
    shown = dict(zip(details(pages, "dt"), details(pages, "dd"), strict=True))
    assert shown["Status"] == "SUCCESS"
    assert shown["Arguments"] == "['tea']"
    assert shown["Result"] == "{'article': 'tea', 'cents': 750}"
    assert shown["Worker"] == worker
    assert shown["Runtime"].endswith("ms") or shown["Runtime"].endswith(" s")
    assert {name for name, value in shown.items() if value in NOTHING} == {"Exchange", "Children"}
    pages.open(f"/task/{fleet.ids[worker]['failed']}")
    assert (
        "order 17 is not covered" in dict(zip(details(pages, "dt"), details(pages, "dd"), strict=True))["Traceback"]
    )


def details(pages, tag):
    return pages.driver.execute_script(
        f"return Array.from(document.querySelectorAll('.detail-row {tag}')).map(each => each.innerText.trim())"
    )


def test_broker_page(pages):
    pages.open("/broker")
    assert {row[0]: row[1] for row in pages.rows("#queue-table")}.items() >= {(name, "0") for name in QUEUES.values()}
