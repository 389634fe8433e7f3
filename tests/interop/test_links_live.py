"""Workflows that a real Celery client composes: on our worker, and on workers of both kinds that share the queue."""

from __future__ import annotations

import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain, chord, group
from celery_client import celery_client

from programs import Program, aioretryq_worker, running
from redis_server import RedisServer

HERE = Path(__file__).parent
PATIENCE = 30


class Fleet:
    """Workers on one database, and a Celery client that sends to them."""

    def __init__(self, url: str, stack: ExitStack, *, celery: bool) -> None:
        self.url = url
        self.env = {"INTEROP_REDIS": url, "AIORETRYQ_LEASE": "1"}
        self.server = stack.enter_context(redis.Redis.from_url(url))
        self.ours = stack.enter_context(aioretryq_worker("links_ours:queue", env=self.env, cwd=HERE))
        if celery:
            self.celery = stack.enter_context(celery_worker(self.env))
        self.client = client_of(url, stack)

    def __getattr__(self, name: str) -> Any:
        return self.client.tasks[f"l.{name}"]

    def seen(self, key: str, count: int) -> list[str]:
        deadline = time.monotonic() + PATIENCE
        while (found := self.server.llen(f"seen:{key}")) < count:
            assert time.monotonic() < deadline, f"{found} of {count}"
            time.sleep(0.01)
        return sorted(line.decode() for line in self.server.lrange(f"seen:{key}", 0, -1))


def celery_worker(env: dict[str, str]) -> Any:
    command = [sys.executable, "-m", "celery", "-A", "links_celery", "worker", "-P", "solo", "-l", "INFO"]
    return running(*command, "--without-mingle", "--without-gossip", env=env, cwd=HERE)


def client_of(url: str, stack: ExitStack) -> Celery:
    """An application that only knows the names."""
    app = stack.enter_context(celery_client(url))
    for name in "add total echo seen fail flaky told told_id only_celery".split():

        def stub(*args: Any) -> None:
            raise NotImplementedError

        app.task(name=f"l.{name}", shared=False, typing=False)(stub)

    return app


@pytest.fixture(scope="module")
def fleets() -> Iterator[dict[str, Fleet]]:
    with ExitStack() as stack:
        server = RedisServer()
        server.start()
        stack.callback(server.close)
        fleets = {
            "ours": Fleet(server.url_of(0), stack, celery=False),
            "both": Fleet(server.url_of(1), stack, celery=True),
        }
        fleets["both"].celery.wait_for(" ready.", timeout=60)
        yield fleets


@pytest.fixture(params=["ours", "both"])
def fleet(request: pytest.FixtureRequest, fleets: dict[str, Fleet]) -> Fleet:
    return fleets[request.param]


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


def test_values(fleet: Fleet) -> None:
    """What each of these gives with Celery's workers alone."""
    add, total, echo, flaky = fleet.add, fleet.total, fleet.echo, fleet.flaky
    expected = [
        (add.s(1, 2) | add.s(3) | add.s(4), 10),
        (add.s(1, 2) | add.si(3, 4), 7),
        (chain(chain(add.s(1, 1), add.s(1)), chain(add.s(1), add.s(1))), 5),
        (group(add.s(1), add.s(2)), [1, 2]),
        (add.s(1, 1) | group(add.s(1), add.s(2)), [3, 4]),
        (add.s(1, 1) | group(add.s(1), add.s(2)) | total.s(), 7),
        (chord([add.s(1), add.s(2)], total.s()), 3),
        (chord([add.s(1)], total.s()), 1),
        (chord([add.s(1), add.s(2)], total.s() | add.s(10)), 13),
        (chord([add.s(1), add.s(2)], group(total.s(), echo.s())), [3, [1, 2]]),
        (chord([chord([add.s(1), add.s(2)], total.s()), add.s(3)], total.s()), 6),
        (chord([add.s(1) | group(add.s(2), add.s(3)), add.s(4)], echo.s()), [[3, 4], 4]),
        (add.s(1, 1) | group(add.s(1), add.s(2)) | total.s() | group(add.s(1), add.s(2)) | total.s(), 17),
        (group(add.s(1), add.s(2)) | group(total.s(), total.s()) | total.s(), 6),
        (flaky.s(5) | group(flaky.s(), add.s(1)) | total.s(), 11),
        (add.starmap([(1, 2), (3, 4)]) | total.s(), 10),
        (echo.map([1, 2]) | total.s(), 3),
        (add.chunks([(1, 2), (3, 4), (5, 6)], 2).group(), [[3, 7], [11]]),
        (chord([add.s(n) for n in range(50)], total.s()), 1225),
    ]
    results = [signature.apply_async() for signature, _ in expected]
    assert [result.get(timeout=PATIENCE) for result in results] == [value for _, value in expected]


def test_links(fleet: Fleet, key: str) -> None:
    fleet.add.apply_async(
        (1, 2), link=[fleet.client.tasks["l.seen"].s(key), fleet.client.tasks["l.seen"].si("own", key)]
    )
    lines = [line.split()[1] for line in fleet.seen(key, 2)]
    assert sorted(lines) == ["3", "own"]


def test_errbacks_of_both_styles(fleet: Fleet, key: str) -> None:
    result = fleet.fail.apply_async(link_error=[fleet.told.s(key), fleet.told_id.s(key)])
    with pytest.raises(ValueError, match="broken"):
        result.get(timeout=PATIENCE)
    assert fleet.seen(key, 2) == [f"new {result.id} ValueError", f"old {result.id}"]


def test_a_chain_that_fails(fleet: Fleet) -> None:
    result = (fleet.fail.s() | fleet.add.s(1) | fleet.add.s(2)).apply_async()
    with pytest.raises(ValueError, match="broken"):
        result.get(timeout=PATIENCE)
    for step in (result, result.parent, result.parent.parent):  # the failed one's state is told before theirs
        with pytest.raises(ValueError, match="broken"):
            step.get(timeout=PATIENCE, follow_parents=False)
        assert step.state == "FAILURE"


def test_a_chord_that_fails(fleet: Fleet, key: str) -> None:
    body = fleet.total.s().on_error(fleet.told_id.s(key))
    result = chord([fleet.add.s(1), fleet.fail.s()], body).apply_async()
    with pytest.raises(Exception, match=r"Dependency \S+ raised ValueError\('broken'\)") as failure:
        result.get(timeout=PATIENCE, follow_parents=False)
    assert type(failure.value).__name__ == "ChordError"
    assert fleet.seen(key, 1) == [f"old {result.id}"]


def test_both_kinds_take_part(fleets: dict[str, Fleet], key: str) -> None:
    """Headers are counted by both, bodies are sent by either, once."""
    fleet = fleets["both"]
    before = set(fleet.server.keys("celery-taskset-meta-*.j"))
    results = [
        chord(
            [fleet.add.s(n), fleet.only_celery.s(n), fleet.add.s(n)], fleet.client.tasks["l.seen"].s(key)
        ).apply_async()
        for n in range(30)
    ]
    values = [result.get(timeout=PATIENCE) for result in results]
    assert values == [[n, n + 100, n] for n in range(30)]
    lines = fleet.seen(key, 30)
    assert len(lines) == 30
    deadline = time.monotonic() + PATIENCE
    while set(fleet.server.keys("celery-taskset-meta-*.j")) != before:  # closed after the body was sent
        assert time.monotonic() < deadline, "something is left of them"


def test_our_worker_is_killed_when_it_is_about_to_send_a_body(fleets: dict[str, Fleet], key: str) -> None:
    fleet = fleets["ours"]
    fleet.ours.signal(signal.SIGSTOP)  # the doomed one gets the tasks
    try:
        with aioretryq_worker("links_ours:queue", env={**fleet.env, "DIE_AT": "count_parts"}, cwd=HERE) as doomed:
            result = chord([fleet.add.s(n) for n in range(3)], fleet.client.tasks["l.seen"].s(key)).apply_async()
            assert doomed.wait() == -signal.SIGKILL
    finally:
        fleet.ours.signal(signal.SIGCONT)
    assert result.get(timeout=PATIENCE) == [0, 1, 2]
    assert (fleet.add.s(1) | fleet.add.s(1)).apply_async().get(timeout=PATIENCE) == 2
    assert fleet.seen(key, 1) == ["ours [0, 1, 2]"]


def test_the_programs_have_said_nothing_odd(fleets: dict[str, Fleet]) -> None:
    programs: list[Program] = [fleets["ours"].ours, fleets["both"].ours, fleets["both"].celery]
    for program in programs:
        assert program.process.poll() is None
        assert "not followed" not in program.output
        assert "Internal error" not in program.output
