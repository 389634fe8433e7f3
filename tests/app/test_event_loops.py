"""A queue outlives the event loops it is used in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from aioretryq import TaskQueue
from queues import memory_url, soon


def test_one_loop_after_the_other(tmp_path, caplog):
    queue = TaskQueue(f"sqlite:///{tmp_path}/queue.sqlite3", backend=memory_url())

    async def send():
        async with queue:
            await soon(queue.send_task("x"))
            return await queue.broker.depth(["celery"])

    assert [asyncio.run(send()) for _ in range(3)] == [{"celery": 1}, {"celery": 2}, {"celery": 3}]
    assert not caplog.records


@pytest.mark.parametrize("place", ["sqlite", "redis"])
def test_left_open_by_loops_that_have_finished(place, tmp_path, redis_url):
    # In a process of its own: what is left open there must not be found here.
    url = redis_url if place == "redis" else f"sqlite:///{tmp_path}/queue.sqlite3"
    program = [sys.executable, str(Path(__file__).with_name("left_open.py")), url]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "[1, 2, 3]\n"
    assert ended.stderr.count("left open by an event loop that has finished") == 2
