"""Members out of a generator: what goes wrong in it, and whose queue they are for."""

from __future__ import annotations

import pytest

from aioretryq import ConfigError, TaskQueue, chord, group
from aioretryq.protocol.members import KEPT, Members
from queues import memory_url, soon


def broken(at, make=int):
    for number in range(at + 10):
        if number == at:
            raise ValueError(f"row {at} is corrupt")
        yield make(number)


@pytest.mark.parametrize("at", [0, 5, KEPT - 1, KEPT, KEPT + 1, KEPT + 50])
def test_one_that_has_failed_is_never_taken_for_a_shorter_one(at):
    members = Members(broken(at))
    with pytest.raises(ValueError, match="corrupt"):
        list(members)
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"row {at} is corrupt"):
            list(members)
        with pytest.raises(ConfigError, match=f"row {at} is corrupt"):
            list(members.map(str))
    if at < KEPT:
        with pytest.raises(ConfigError, match="corrupt"):
            members.first(KEPT)
    assert members.first(min(at, KEPT)) == list(range(min(at, KEPT)))


@pytest.mark.parametrize("at", [5, 500])
async def test_nothing_of_it_is_sent_later(queue, at):
    add, total = queue.tasks["w.add"], queue.tasks["w.total"]
    for look in (lambda each: each.tasks, lambda each: each.draw(), None):
        whole = chord(broken(at, add.s), total.s())
        if look is not None:
            with pytest.raises(ValueError, match="corrupt"):
                look(whole)
        else:
            with pytest.raises(ValueError, match="corrupt"):
                await whole.delay()
        for _ in range(2):
            with pytest.raises(ConfigError, match="corrupt"):
                await whole.delay()
    assert (await queue.broker.claim(["celery"], limit=100)).deliveries == []


async def test_they_are_sent_by_the_queue_of_their_tasks():
    first, other = TaskQueue(memory_url()), TaskQueue(memory_url())

    @first.task(name="g.add")
    async def add(x):
        return x

    @other.task(name="g.add")
    async def newest(x):
        return x

    made = []

    def members(signature=add.s):
        for number in range(3):
            made.append(number)
            yield signature(number)

    whole = [group(members()), chord(members()), group(members()) | newest.s(), newest.s(1) | newest.s(2)]
    named = group(members(lambda n: {"task": "g.add", "args": [n]})) | add.s()
    assert made == []
    assert [each.app is first for each in whole] == [True, True, True, False]
    assert named.app is first
    async with first, other:
        await soon(group(members()).delay())
        assert len((await first.broker.claim(["celery"], limit=10)).deliveries) == 3
        assert (await other.broker.claim(["celery"], limit=10)).deliveries == []
