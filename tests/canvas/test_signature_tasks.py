"""What a task does with signatures while it runs: has itself replaced, adds to its chord, is given one."""

from __future__ import annotations

import pytest

from aioretryq import ConfigError, Signature, chain, chord, group, signature
from aioretryq.errors import Replaced
from queues import soon


@pytest.fixture
def add(queue):
    return queue.tasks["w.add"]


@pytest.fixture
def define(queue):
    def made(function):
        return queue.task(name=f"w.{function.__name__}", bind=True)(function)

    return made


async def test_a_task_is_replaced_by_what_it_composes(worker, define, add):
    @define
    async def instead(self, kind):
        return self.replace(
            {
                "call": add.s(1, 2),
                "chain": add.s(1, 2) | add.s(10),
                "group": group(add.s(1, 2), add.s(3, 4)),
                "dictionary": add.s(1, 2).to_dict(),
            }[kind]
        )

    assert await soon((await instead.delay("call")).get()) == 3
    assert await soon((await instead.delay("dictionary")).get()) == 3
    assert await soon((await instead.delay("chain")).get()) == 13
    assert await soon((await instead.delay("group")).get()) == [3, 7]
    assert await soon((await (instead.s("call") | add.s(100))).get()) == 103


async def test_a_thread_is_replaced_too(worker, define, add):
    @define
    def instead(self):
        return self.replace(add.s(1, 2))

    assert await soon((await instead.delay()).get()) == 3


async def test_what_cannot_replace_a_task_fails_it(worker, define, add):
    @define
    async def instead(self, kind):
        return self.replace(
            {"empty": chain(), "part": add.s(1).set(chord=add.s()), "none": 3}[kind],
        )

    with pytest.raises(ConfigError, match="without steps"):
        await soon((await instead.delay("empty")).get())
    with pytest.raises(ConfigError, match="part of a chord"):
        await soon((await instead.delay("part")).get())
    with pytest.raises(TypeError, match="signature"):
        await soon((await instead.delay("none")).get())


async def test_outside_of_a_run_nothing_is_replaced(add):
    with pytest.raises(RuntimeError, match="outside"):
        add.replace(add.s(1))
    with pytest.raises(ValueError, match="chord"):
        await add.add_to_chord(add.s(1))


def test_replaced_says_by_what(add):
    assert "w.add" in str(Replaced(add.s(1).node))


async def test_a_part_adds_parts(worker, define, add):
    @define
    async def grows(self):
        added = await self.add_to_chord(add.s(10, 1))
        assert added.id
        later = await self.add_to_chord(add.s(20, 2), lazy=True)
        assert isinstance(later, Signature)
        await later.delay()
        return "self"

    values = await soon((await chord([add.s(1, 2), grows.s()])(worker.queue.tasks["w.echo"].s())).get())
    assert values[0] == 3
    assert sorted(map(str, values[1:])) == ["11", "22", "self"]


async def test_a_task_is_given_a_signature(worker, define, add):
    @define
    async def runs(self, call):
        assert type(call) is dict
        return await (await signature(call, app=self.app).delay(1)).get()

    assert await soon((await runs.delay(add.s(10) | add.s(100))).get()) == 111
