"""A Celery project, unchanged, on both kinds of worker: the same results, hooks and signals."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery_bridge.conftest import Shop
from celery_bridge.expected import ERRORS, JOURNALS, PLAIN, REQUESTS, VALUES

from redis_server import RedisServer

SCENARIOS = [*VALUES, *ERRORS, *PLAIN, *REQUESTS]
COROUTINES = [
    "coroutine",
    "coroutine, own retries",
    "coroutine, retries run out",
    "coroutine, autoretry",
    "coroutine, soft limit",
    "coroutine, hard limit",
    "coroutine, chain",
    "coroutine, chord",
    "coroutine, SystemExit",
    "SystemExit",
]


@pytest.fixture(scope="module")
def both(server: RedisServer) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the workers of both kinds have answered, each in a database of its own, at the same time."""
    mine, other = Shop(server.url_of(1)), Shop(server.url_of(2))

    def of_ours() -> dict[str, Any]:
        with mine.our_worker():
            return mine.ask(*SCENARIOS, *COROUTINES)

    def of_celerys() -> dict[str, Any]:
        with other.celerys_worker():
            return other.ask(*SCENARIOS)

    with ThreadPoolExecutor(2) as threads:
        ours, celerys = threads.submit(of_ours), threads.submit(of_celerys)
        return ours.result(), celerys.result()


@pytest.fixture(scope="module")
def ours(both: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    return both[0]


@pytest.fixture(scope="module")
def celerys(both: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    return both[1]


@pytest.fixture(params=["ours", "celerys"])
def answers(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("name", VALUES)
def test_values(answers, name):
    assert (answers[name].get("value"), answers[name]["state"]) == (VALUES[name], "SUCCESS")


@pytest.mark.parametrize("name", ERRORS)
def test_errors(answers, name):
    found = answers[name]
    assert (found["error"], found["args"], found["state"]) == ERRORS[name]


@pytest.mark.parametrize("name", PLAIN)
def test_canvas_and_links(answers, name):
    assert answers[name] == PLAIN[name]


@pytest.mark.parametrize("name", REQUESTS)
def test_what_a_task_knows_of_its_run(answers, name):
    assert answers[name]["value"] == REQUESTS[name]


@pytest.mark.parametrize("name", JOURNALS)
def test_hooks_and_signals(answers, name):
    assert answers[name]["journal"] == JOURNALS[name]


@pytest.mark.parametrize("name", SCENARIOS)
def test_both_workers_do_the_same(ours, celerys, name):
    assert ours[name] == celerys[name]


class TestCoroutines:
    """What Celery's own worker cannot run."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("coroutine", {"name": "cat", "id": True, "hostname": True}),
            ("coroutine, own retries", 2),
            ("coroutine, autoretry", 2),
            ("coroutine, soft limit", "soft limit"),
        ],
    )
    def test_values(self, ours, name, value):
        assert (ours[name].get("value"), ours[name]["state"]) == (value, "SUCCESS")

    @pytest.mark.parametrize(
        ("name", "error", "arguments"),
        [
            ("coroutine, retries run out", "PaymentDown", ["upload"]),
            ("coroutine, hard limit", "TimeLimitExceeded", ["0.2"]),
            ("coroutine, SystemExit", "WorkerLostError", ["Worker exited prematurely: exitcode 3."]),
            ("SystemExit", "WorkerLostError", ["Worker exited prematurely: exitcode 3."]),
        ],
    )
    def test_errors(self, ours, name, error, arguments):
        assert (ours[name]["error"], ours[name]["args"], ours[name]["state"]) == (error, arguments, "FAILURE")

    def test_canvas(self, ours):
        assert (ours["coroutine, chain"], ours["coroutine, chord"]) == (5, 3)

    def test_hooks_and_signals_are_around_the_coroutine(self, ours):
        assert ours["coroutine, hard limit"]["journal"] == [
            "__call__",
            "after_return FAILURE",
            "before_start",
            "cancelled TIME_LIMIT",
            "on_failure TimeLimitExceeded(0.2)",
            "task_failure TimeLimitExceeded(0.2)",
            "task_postrun None",
            "task_prerun retries=0",
            "task_received wait [30]",
            "wait begins",
        ]
        assert ours["coroutine, own retries"]["journal"].count("on_retry PaymentDown('upload')") == 2
