"""Where trees are sent to, and by whom: workers of one kind or both on a database, a client of either kind; and what
became of each tree, read from the server itself."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import redis
from canvas.oracle import ChordError, Members, Value, failure
from canvas.tree_apis import ByCelery, ByUs
from canvas.tree_tasks import ERRORS
from canvas.trees import Tree, built
from celery import Celery
from celery.result import GroupResult as CelerysGroup
from celery_client import celery_client
from trees_parts import RAN

from aioretryq import GroupResult, TaskQueue
from programs import aioretryq_worker, running

HERE = Path(__file__).parent
PATIENCE = 120
"""Seconds for all trees of a fleet."""
QUIET = 4
"""Seconds without any event, after which what has not ended never will."""

KNOWN_ERRORS = {**ERRORS, "ChordError": ChordError}

Found: TypeAlias = Any
"""An outcome as the oracle has it, or None for a result that never came."""


class Sent:
    """One tree, on its way: the ids of its results, lists for groups."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.ids = ids_of(result)


class Fleet:
    """Workers on one database. `ours` and `celery`: how many of a kind."""

    def __init__(self, url: str, stack: ExitStack, *, ours: int, celery: int) -> None:
        self.url = url
        self.server = stack.enter_context(redis.Redis.from_url(url))
        env = {"INTEROP_REDIS": url, "AIORETRYQ_LEASE": "5", "PYTHONPATH": str(HERE.parent)}
        self.celery = [stack.enter_context(celery_worker(env)) for _ in range(celery)]
        self.ours = [
            stack.enter_context(aioretryq_worker("trees_ours:queue", env=env, cwd=HERE)) for _ in range(ours)
        ]
        self.client = client_of(url, stack)
        self.sent: dict[str, list[Sent]] = {}
        self.ended: dict[str, Found] = {}
        self.states: dict[str, str] = {}
        """Of those that have not ended."""
        self.ran: dict[str, Counter[str]] = {}

    def ready(self) -> None:
        for worker in self.celery:
            worker.wait_for(" ready.", timeout=60)

    def send_by_celery(self, trees: list[Tree]) -> None:
        api = ByCelery(self.client)
        self.sent["celery"] = [Sent(built(tree, api, f"celery-{n}").apply_async()) for n, tree in enumerate(trees)]

    async def send_by_us(self, trees: list[Tree]) -> None:
        async with TaskQueue(self.url) as queue:
            api = ByUs(queue)
            self.sent["ours"] = [
                Sent(await built(tree, api, f"ours-{n}").apply_async()) for n, tree in enumerate(trees)
            ]

    def wait(self, runs: int) -> None:
        """Until all results have come and `runs` notes were made, or nothing happens any more."""
        waiting = {each for sents in self.sent.values() for sent in sents for each in leaves(sent.ids)}
        changed, before, give_up = time.monotonic(), None, time.monotonic() + PATIENCE
        while True:
            self._read(waiting)
            state = (len(waiting), self.server.llen(RAN))
            if state != before:
                changed, before = time.monotonic(), state
            if (not waiting and state[1] >= runs) or time.monotonic() - changed > QUIET:
                break
            assert time.monotonic() < give_up, f"{len(waiting)} results have not come yet"
            time.sleep(0.05)
        for line in self.server.lrange(RAN, 0, -1):
            label, _, rest = line.decode().partition(".")
            self.ran.setdefault(label, Counter())[rest] += 1

    def _read(self, waiting: set[str]) -> None:
        asked = sorted(waiting)
        documents = self.server.mget([f"celery-task-meta-{each}" for each in asked]) if asked else []
        for task_id, found in zip(asked, documents, strict=True):
            if found is None:
                continue
            document = json.loads(found)
            if document["status"] in ("SUCCESS", "FAILURE"):
                self.ended[task_id] = outcome_of(document)
                waiting.discard(task_id)
            else:
                self.states[task_id] = document["status"]

    def outcome(self, client: str, number: int) -> Found:
        return self._outcome(self.sent[client][number].ids)

    def _outcome(self, ids: Any) -> Found:
        if isinstance(ids, list):
            return Members(tuple(map(self._outcome, ids)))
        return self.ended.get(ids, self.states.get(ids))

    def log(self, client: str, number: int) -> Counter[str]:
        return self.ran.get(f"{client}-{number}", Counter())


def celery_worker(env: dict[str, str]) -> Any:
    command = [sys.executable, "-m", "celery", "-A", "trees_celery", "worker", "-P", "solo", "-l", "INFO"]
    return running(*command, "--without-mingle", "--without-gossip", env=env, cwd=HERE)


def client_of(url: str, stack: ExitStack) -> Celery:
    return stack.enter_context(celery_client(url))


def outcome_of(document: dict[str, Any]) -> Found:
    result = document["result"]
    if document["status"] == "SUCCESS":
        return Value(result)
    error = KNOWN_ERRORS.get(result["exc_type"]) or type(result["exc_type"], (Exception,), {})
    return failure(error(*result["exc_message"]))


def ids_of(result: Any) -> Any:
    if isinstance(result, GroupResult | CelerysGroup):
        return [ids_of(member) for member in result.results]
    return None if result is None else result.id


def leaves(ids: Any) -> Iterator[str]:
    if isinstance(ids, list):
        for each in ids:
            yield from leaves(each)
    elif ids is not None:
        yield ids
