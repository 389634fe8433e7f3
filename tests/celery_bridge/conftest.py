"""The example shop, served by aioretryq or by Celery."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from celery import Celery

from programs import ROOT, Program, aioretryq_worker, environment, running
from redis_server import RedisServer

HERE = Path(__file__).parent
SHOP = "examples.celery_project"


class Shop:
    """One database, its clients and workers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.env = {"SHOP_REDIS": url, "PYTHONPATH": f"{ROOT}:{HERE}", "AIORETRYQ_LEASE": "1"}
        self.redis = redis_client.Redis.from_url(url, decode_responses=True)

    def close(self) -> None:
        self.redis.close()

    def ask(self, *names: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(HERE / "shop_client.py"), *names],
            env={**environment(), **self.env},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def send(self, task: str, *arguments: Any, **options: Any) -> str:
        """The id of a task of the shop, sent by a Celery client in this process."""
        with client(self.url) as app:
            sent = app.send_task(f"{SHOP}.{task}", arguments, queue="shop", **options)
            return str(sent.id)

    def result(self, task_id: str) -> dict[str, Any] | None:
        found = self.redis.get(f"celery-task-meta-{task_id}")
        return None if found is None else json.loads(str(found))

    def journal(self, task_id: str) -> list[str]:
        return [str(line) for line in self.redis.lrange(f"shop:journal:{task_id}", 0, -1)]

    @contextmanager
    def our_worker(self, *options: str, **env: str) -> Iterator[Program]:
        with aioretryq_worker("--celery", SHOP, *options, env={**self.env, **env}, cwd=ROOT) as program:
            yield program

    @contextmanager
    def celerys_worker(self) -> Iterator[Program]:
        options = ["-P", "threads", "-c", "4", "--without-gossip", "--without-mingle", "-l", "INFO"]
        with running(
            sys.executable, "-m", "celery", "-A", SHOP, "worker", *options, env=self.env, cwd=ROOT
        ) as program:
            program.wait_for(" ready.", timeout=60)
            yield program


@contextmanager
def client(url: str) -> Iterator[Any]:
    app = Celery("client", broker=url, backend=url, set_as_current=False)
    with app:
        yield app


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def shop(server: RedisServer) -> Iterator[Shop]:
    """Empty, with no worker yet."""
    shop = Shop(server.url_of(5))
    shop.redis.flushdb()
    yield shop
    shop.close()
