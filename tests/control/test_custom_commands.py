"""Commands of an application."""

from __future__ import annotations

import asyncio

import pytest
from control_lab import NODE

from aioretryq import ConfigError, TaskQueue
from aioretryq.errors import UnknownSettingError


def define(queue):
    @queue.inspect_command
    def where(state):
        return {"node": state.hostname, "tasks": len(state.app.tasks), "limit": state.worker.concurrency}

    @queue.control_command(
        name="bump", alias="more", args=[("n", int)], variadic="names", signature="[N]", help="More."
    )
    async def increase(state, n=1, names=()):
        await asyncio.sleep(0)
        return {"ok": [n, *names]}

    @queue.control_command()
    def broken(state, **options):
        raise LookupError(sorted(options))

    @queue.inspect_command
    def odd(state):
        return {"made of": object(), "set": {1}}


async def ask(lab, method, /, **arguments):
    return (await lab.client.control.broadcast(method, arguments, timeout=15))[NODE]


async def test_they_answer_as_the_others_do(memory_lab, caplog):
    await memory_lab.worker(define=define, concurrency=7)
    assert await ask(memory_lab, "where", unknown="argument") == {"node": NODE, "tasks": 0, "limit": 7}
    assert await ask(memory_lab, "bump") == {"ok": [1]}
    assert await ask(memory_lab, "more", n=5, names=["a"]) == {"ok": [5, "a"]}
    assert await ask(memory_lab, "broken", a=1) == {"error": "LookupError(['a'])"}
    assert "Traceback" in caplog.text
    assert (await ask(memory_lab, "odd"))["set"] == [1]


def test_mistakes_are_told_when_they_are_defined():
    queue = TaskQueue("memory://")
    with pytest.raises(ConfigError, match="'ping' is a command of aioretryq"):
        queue.control_command(name="ping")(print)
    with pytest.raises(UnknownSettingError, match="signature"):
        queue.control_command(signatur="x")
    with pytest.raises(ConfigError, match="args is a list"):
        queue.inspect_command(name="x", args=["n"])(print)
