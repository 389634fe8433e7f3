"""`Task.replace` on Celery's workers, on ours, and on both: the same values and errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from replace_parts import WAYS
from test_links_live import PATIENCE, client_of

from programs import aioretryq_worker, running
from redis_server import RedisServer

HERE = Path(__file__).parent
FLEETS = ("celery", "ours", "both")

HANGING = {
    "chord of a chain": ["in a header", "last in a header"],
    "fails": ["before a group"],
    "chord that fails": ["before a group"],
}
"""Where nobody ever hears of it from Celery's workers: the part of a header never returns, a group is not told."""


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, Celery]]:
    with ExitStack() as stack:
        server = RedisServer()
        server.start()
        stack.callback(server.close)
        clients, programs = {}, []
        for number, name in enumerate(FLEETS):
            url = server.url_of(number)
            env = {"INTEROP_REDIS": url, "AIORETRYQ_LEASE": "1"}
            if name != "ours":
                command = [
                    sys.executable,
                    "-m",
                    "celery",
                    "-A",
                    "replace_celery",
                    "worker",
                    "-P",
                    "solo",
                    "-l",
                    "INFO",
                ]
                options = ["--without-mingle", "--without-gossip"]
                programs.append(stack.enter_context(running(*command, *options, env=env, cwd=HERE)))
            if name != "celery":
                stack.enter_context(aioretryq_worker("replace_ours:queue", env=env, cwd=HERE))
            clients[name] = client_of(url, stack)
        for program in programs:
            program.wait_for(" ready.", timeout=60)
        yield clients


def places(app: Celery, way: str) -> dict[str, Any]:
    def s(name: str, *args: Any) -> Any:
        return app.signature(f"l.{name}", args=args)

    return {
        "alone": s("instead", 5, way),
        "first": chain(s("instead", 5, way), s("echo"), s("echo")),
        "middle": chain(s("add", 5), s("instead", way), s("echo")),
        "last": chain(s("add", 5), s("instead", way)),
        "in a group": group(s("instead", 5, way), s("add", 1)),
        "in a header": chord([s("instead", 5, way), s("add", 1), s("instead", 6, way)], s("echo")),
        "last in a header": chord([chain(s("add", 5), s("instead", way)), s("add", 1)], s("echo")),
        "body": chain(group(s("add", 5), s("add", 1)), s("total"), s("instead", way), s("echo")),
        "before a group": chain(s("instead", 5, way), group(s("echo"), s("echo"))),
    }


def ended(result: Any) -> Any:
    try:
        return result.get(timeout=PATIENCE)
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("way", WAYS)
def test_the_same_everywhere(clients: dict[str, Celery], way: str) -> None:
    sent = {
        fleet: {
            place: signature.apply_async()
            for place, signature in places(app, way).items()
            if fleet == "ours" or place not in HANGING.get(way, ())
        }
        for fleet, app in clients.items()
    }
    found = {fleet: {place: ended(result) for place, result in results.items()} for fleet, results in sent.items()}
    assert found["both"] == found["celery"]
    assert found["ours"] | found["celery"] == found["ours"]
    assert "TimeoutError" not in found["ours"].values()
