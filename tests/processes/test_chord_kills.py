"""Whoever works on a chord is killed, at each step: its body runs once, nothing is lost, nobody waits for ever."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redis
from chord_kills import MANY, PARTS, RUNS, define

from aioretryq import ChordError, TaskQueue, Worker
from aioretryq.canvas import chord, signature
from aioretryq.workflows import rescue
from programs import Program, running
from redis_server import RedisServer

pytestmark = pytest.mark.timeout(300)  # half a minute, where nothing else is running

HERE = Path(__file__).parent
PATIENCE = 45
"""Seconds for one chord: a lease, or as long as it takes until somebody looks after it."""
AT_ONCE = 6
"""Chords at the same time, each with processes of its own."""


@dataclass(frozen=True)
class Case:
    """`kill_at` of whom: our worker, Celery's, or the sender of a header of so many parts."""

    kill_at: str
    victim: str = "ours"
    survivor: str = "ours"
    part: str = "k.part"
    fails: bool = False
    late: bool = False
    """Celery's worker acknowledges late."""
    size: int = PARTS
    then: str = ""
    """Where the worker dies that comes after the first victim."""

    def __str__(self) -> str:
        about = [word for word, is_so in (("fails", self.fails), ("early", self.part == "k.early")) if is_so]
        about += ["late"] if self.late else []
        about += [f"then {self.then}"] if self.then else []
        return " ".join([self.victim, self.kill_at, *about, "" if self.survivor == "ours" else "then Celery"]).strip()


POINTS = [
    "after claim",
    "before store",
    "after store",
    "before count",
    "after count",
    "before count of the last",
    "after count of the last",
    "before hold",
    "after hold",
    "before finish with the body",
    "after finish with the body",
    "after close",
]
CASES = [
    # Somebody has to look after these: the longest ones are begun first.
    Case("after count of the last", part="k.early"),
    Case("with the right", victim="celery"),
    Case("with the right", victim="celery", late=True),
    *(
        Case("after open", victim="sender", size=MANY, then=point)
        for point in (
            "before send",
            "after send",
            "after count of the last",
            "after hold",
            "before finish",
            "after close",
        )
    ),
    *(
        Case(point, victim="sender", size=MANY)
        for point in ("after send", "before amend", "after amend", "before amend:2", "after amend:2")
    ),
    Case("after hold", survivor="celery"),
    *(Case(point) for point in POINTS),
    *(Case(point, fails=True) for point in ("after count of the last", "after hold", "before finish with the body")),
]


@pytest.fixture(scope="module")
def ends() -> Iterator[dict[Case, Any]]:
    """What came of all of them, a few at a time."""
    with ExitStack() as stack:
        server = RedisServer("--databases", str(len(CASES)))
        server.start()
        stack.callback(server.close)
        yield asyncio.run(play_all(server))


async def play_all(server: RedisServer) -> dict[Case, Any]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, case: Case) -> Any:
        async with places:
            play = play_sender if case.victim == "sender" else play_worker
            return await play(case, server.url_of(number))

    ends = await asyncio.gather(*(one(*each) for each in enumerate(CASES)), return_exceptions=True)
    return dict(zip(CASES, ends, strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_body_runs_once(ends: dict[Case, Any], case: Case) -> None:
    if isinstance(ends[case], BaseException):
        raise ends[case]


async def play_worker(case: Case, url: str) -> None:
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(queue_at(url))
        names = [case.part] * case.size
        if case.fails:
            names[1] = "k.broken"
        body = signature("k.body", task_id=body_of(url), link_error=[signature("k.told")], app=queue)
        await chord([signature(name, (number,), app=queue) for number, name in enumerate(names)], body).apply_async()
        await stack.enter_async_context(killed(case, url))
        async with asyncio.timeout(PATIENCE), survivor(case, url, queue):
            if case.fails:
                with pytest.raises(ChordError, match="raised ValueError"):
                    await queue.AsyncResult(body_of(url)).get()
            else:
                assert await queue.AsyncResult(body_of(url)).get() == list(range(case.size))
            await quiet(url)
        runs = noted(url)
        assert runs.pop("body", 0) == (0 if case.fails else 1)
        assert runs.pop("told", 0) == (1 if case.fails else 0)
        assert set(runs) == {f"part {number}" for number in range(case.size)}
        assert max(runs.values()) <= 2, f"only what was not acknowledged when it was killed may run again: {runs}"
        assert await queue.broker.dead_count() == 0


async def play_sender(case: Case, url: str) -> None:
    """What was sent runs; the body either gets it all, or is failed, for it never will."""
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(queue_at(url))
        await stack.enter_async_context(killed(case, url))
        sent = (await queue.broker.depth(["celery"]))["celery"]
        if case.then:
            await stack.enter_async_context(killed(replace(case, victim="ours", kill_at=case.then), url))
        async with asyncio.timeout(PATIENCE), Worker(queue, concurrency=50).running():
            found = await queue.AsyncResult(body_of(url)).get(propagate=False)
            await quiet(url)
        runs = noted(url)
        bodies = runs.pop("body", 0)
        if sent == case.size:
            assert (found, bodies) == (list(range(case.size)), 1) or (type(found), bodies) == (ChordError, 0)
        else:
            assert (type(found), bodies) == (ChordError, 0), f"{sent} were sent"
        assert sorted(runs.values()) == [1] * sent
        assert await queue.broker.dead_count() == 0


def body_of(url: str) -> str:
    """Its id. Databases share one server: the news that a result is there goes to all of them."""
    return f"body-{url.rpartition('/')[2]}"


def queue_at(url: str) -> TaskQueue:
    queue = TaskQueue(url, lease=1.0, broker_transport_options={"visibility_timeout": 2})
    define(queue, url)
    return queue


def program(case: Case, url: str, who: str, **env: str) -> Any:
    env = {"AIORETRYQ_URL": url, "AIORETRYQ_LEASE": "1", **env}
    env["AIORETRYQ_BROKER_TRANSPORT_OPTIONS"] = '{"visibility_timeout": 2}'
    if case.late:
        env["LATE"] = "1"
    command = {
        "ours": ["aioretryq", "worker", "chord_kills:queue", "-c", "1"],
        "celery": ["celery", "-A", "chord_kills_celery", "worker", "-P", "solo", "-l", "INFO"],
        "sender": ["chord_kills", str(case.size), body_of(url)],
    }[who]
    return running(sys.executable, "-m", *command, env=env, cwd=HERE)


class killed:
    """Once it has killed itself."""

    def __init__(self, case: Case, url: str) -> None:
        self._program = program(case, url, case.victim, KILL_AT=case.kill_at)

    async def __aenter__(self) -> None:
        victim: Program = self._program.__enter__()
        try:
            async with asyncio.timeout(PATIENCE):
                while victim.process.poll() is None:
                    await asyncio.sleep(0.01)
            assert victim.wait() == -signal.SIGKILL, victim.output
        finally:
            self._program.__exit__(None, None, None)

    async def __aexit__(self, *exc_info: object) -> None:
        pass


class survivor:
    def __init__(self, case: Case, url: str, queue: TaskQueue) -> None:
        self._running = Worker(queue).running() if case.survivor == "ours" else program(case, url, "celery")
        self._is_ours = case.survivor == "ours"

    async def __aenter__(self) -> None:
        await self._running.__aenter__() if self._is_ours else self._running.__enter__()

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._running.__aexit__(*exc_info) if self._is_ours else self._running.__exit__(*exc_info)


async def quiet(url: str) -> None:
    """Until nothing waits, and nobody holds anything: what would be done twice has been done then."""
    with redis.Redis.from_url(url) as server:
        while True:
            with server.pipeline(transaction=True) as pipe:
                if not any(pipe.llen("celery").llen(rescue.QUEUE).hlen("unacked").execute()):
                    return
            await asyncio.sleep(0.02)


def noted(url: str) -> dict[str, int]:
    with redis.Redis.from_url(url) as server:
        return {key.decode(): int(count) for key, count in server.hgetall(RUNS).items()}
