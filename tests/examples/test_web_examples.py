"""The web examples: a real server, a real worker with one place, and a real client."""

from __future__ import annotations

import re
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from programs import ROOT, Program, aioretryq_worker, running
from redis_server import free_port

FAR = 600.0
"""Seconds of a job that nobody waits for: it has to be cancelled."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite3"


@pytest.fixture
def env(file: Path) -> dict[str, str]:
    return {"AIORETRYQ_URL": f"sqlite:///{file}", "AIORETRYQ_TASK_PUBLISH_TIMEOUT": "2"}


@pytest.fixture
def worker(env: dict[str, str]) -> Iterator[Program]:
    """With one place: what is behind a long job waits in the queue."""
    with aioretryq_worker("examples.fastapi_app:queue", "-c", "1", env=env, cwd=ROOT) as program:
        yield program


@pytest.fixture
def http(env: dict[str, str]) -> Iterator[httpx.Client]:
    """A client of the FastAPI example."""
    with running(
        sys.executable, "-m", "uvicorn", "examples.fastapi_app:app", "--port", "0", env=env, cwd=ROOT
    ) as app:
        app.wait_for("Uvicorn running on")
        found = re.search(r"running on (http://\S+)", app.output)
        assert found is not None
        with httpx.Client(base_url=found[1], timeout=30) as client:
            yield client
        app.signal(signal.SIGTERM)
        app.wait_for("Application shutdown complete")


def start(http: httpx.Client, title: str, seconds: float = 0.0) -> str:
    response = http.post("/jobs", json={"title": title, "seconds": seconds})
    assert response.status_code == 202, response.text
    assert response.json()["status"] == "PENDING"
    return str(response.json()["id"])


def wait_status(http: httpx.Client, job: str, wanted: str) -> None:
    """The API has nothing that tells of a start, so its users ask again."""
    deadline = time.monotonic() + 20
    while (status := http.get(f"/jobs/{job}").json()["status"]) != wanted:
        assert time.monotonic() < deadline, f"still {status}"


@pytest.mark.usefixtures("worker")
def test_a_job_is_done_and_its_result_right(http):
    job = start(http, "Sales", 0.01)

    response = http.get(f"/jobs/{job}/result", params={"timeout": 20})

    assert (response.status_code, response.json()) == (200, {"id": job, "text": "Sales: everything is fine"})
    assert http.get(f"/jobs/{job}").json() == {"id": job, "status": "SUCCESS"}


@pytest.mark.usefixtures("worker")
def test_jobs_sent_at_once_get_their_own_results(http):
    jobs = {title: start(http, title) for title in ("A", "B", "C", "D")}

    texts = {title: http.get(f"/jobs/{job}/result").json()["text"] for title, job in jobs.items()}

    assert texts == {title: f"{title}: everything is fine" for title in jobs}


def test_a_running_and_a_queued_job_are_cancelled(http, worker):
    running_job = start(http, "running", FAR)
    queued_job = start(http, "queued")
    last_job = start(http, "last")
    wait_status(http, running_job, "STARTED")

    for job in (queued_job, running_job):
        assert http.delete(f"/jobs/{job}").status_code == 204

    # The only place of the worker is free again, and what was cancelled has not used it.
    assert http.get(f"/jobs/{last_job}/result", params={"timeout": 20}).json()["text"] == "last: everything is fine"
    worker.wait_for(f"[{running_job}] was not run to its end: terminated")
    worker.wait_for(f"[{queued_job}] was not run to its end: revoked")
    assert f"[{queued_job}] succeeded" not in worker.output
    for job in (queued_job, running_job):
        assert http.get(f"/jobs/{job}").json()["status"] == "REVOKED"
        assert http.get(f"/jobs/{job}/result").status_code == 410


@pytest.mark.usefixtures("worker")
def test_cancelling_what_is_done_changes_nothing(http):
    job = start(http, "done")
    http.get(f"/jobs/{job}/result")

    assert http.delete(f"/jobs/{job}").status_code == 204

    assert http.get(f"/jobs/{job}/result").json()["text"] == "done: everything is fine"


def test_waiting_ends_when_the_client_says_so(http):
    """No worker is running."""
    job = start(http, "nobody does it")

    response = http.get(f"/jobs/{job}/result", params={"timeout": 0.1})

    assert response.status_code == 504
    assert "was not done within 0.1 s" in response.json()["detail"]
    assert http.get(f"/jobs/{job}/result", params={"timeout": 61}).status_code == 422


def test_an_unavailable_broker_is_said_to_be_so(http, file):
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = http.post("/jobs", json={"title": "too early"})

    assert refused.status_code == 503
    # It was on its way: who asks again may get it twice.
    assert "may or may not have been sent" in refused.json()["detail"]
    assert "Retry-After" not in refused.headers
    assert "queue.sqlite3 has not confirmed it within 2 s" in refused.json()["detail"]
    start(http, "later it works")


def test_aiohttp_server(env):
    port = free_port()
    with (
        aioretryq_worker("examples.aiohttp_app:queue", env=env, cwd=ROOT),
        running(sys.executable, "-m", "examples.aiohttp_app", env={**env, "PORT": str(port)}, cwd=ROOT) as app,
    ):
        app.wait_for("Running on")
        response = httpx.get(f"http://localhost:{port}/reverse/stressed", timeout=30)
        app.signal(signal.SIGTERM)

        assert app.wait() == 0, app.output
    assert response.status_code == 200, response.text
    assert response.json()["text"] == "desserts"


def test_aiohttp_server_with_an_unavailable_broker(env, file):
    port = free_port()
    with running(sys.executable, "-m", "examples.aiohttp_app", env={**env, "PORT": str(port)}, cwd=ROOT) as app:
        app.wait_for("Running on")
        with closing(sqlite3.connect(file)) as other:
            other.execute("BEGIN IMMEDIATE")
            response = httpx.get(f"http://localhost:{port}/reverse/stressed", timeout=30)

    assert response.status_code == 503
    assert "has not confirmed it" in response.text
