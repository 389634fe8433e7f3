"""Group commit: what comes in while a batch is on its way is the next batch."""

from __future__ import annotations

import asyncio

import pytest

from aioretryq import BrokerError, BrokerUnavailable, NotOpenError
from aioretryq.batching import GroupCommit
from queues import soon, until


class Server:
    def __init__(self):
        self.batches = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.bad = set()
        self.error = BrokerError("bad")

    async def commit(self, items):
        self.batches.append(list(items))
        await self.gate.wait()
        if self.bad & set(items):
            raise self.error
        return [item * 10 for item in items]


@pytest.fixture
def server():
    return Server()


@pytest.fixture
async def commits(server):
    commits = GroupCommit(server.commit, limit=5)
    running = asyncio.create_task(commits.run())
    yield commits
    running.cancel()
    await asyncio.wait([running])


async def submit(commits, items):
    """All handed in before anything else happens."""
    entries = [commits.hand_in(item) for item in items]
    return await soon(asyncio.gather(*[entry.answer for entry in entries], return_exceptions=True))


async def test_everybody_gets_their_own_answer(server, commits):
    assert await submit(commits, range(12)) == [item * 10 for item in range(12)]
    assert [item for batch in server.batches for item in batch] == list(range(12))
    assert max(map(len, server.batches)) == 5


async def test_one_alone_does_not_wait_for_others(server, commits):
    assert await soon(commits.submit(1)) == 10
    assert server.batches == [[1]]


async def test_who_finds_nobody_committing_does_it_himself(server):
    commits = GroupCommit(server.commit)  # nobody runs it
    assert await soon(commits.submit(1)) == 10
    assert await soon(commits.submit(2)) == 20


async def test_what_comes_while_one_commits_for_himself_is_the_next_batch(server, commits):
    server.gate.clear()
    waiting = [asyncio.ensure_future(commits.submit(item)) for item in (1, 2, 3)]
    await until(lambda: server.batches)
    server.gate.set()
    assert await soon(asyncio.gather(*waiting)) == [10, 20, 30]
    assert server.batches == [[1], [2, 3]]


async def test_who_commits_for_himself_may_be_cancelled(server, commits):
    server.gate.clear()
    first, second = (asyncio.ensure_future(commits.submit(item)) for item in (1, 2))
    await until(lambda: server.batches)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    server.gate.set()
    assert await soon(second) == 20
    assert await soon(commits.submit(3)) == 30


async def test_what_is_given_up_ends_at_once_for_who_commits_it(server, commits):
    server.gate.clear()
    entry = commits.hand_in(1, at_once=True)
    waiting = asyncio.ensure_future(commits.answered(entry))
    await until(lambda: server.batches)
    entry.fail(TimeoutError("too late"))
    with pytest.raises(TimeoutError, match="too late"):
        await soon(waiting)
    assert not waiting.cancelled()
    server.gate.set()
    assert await soon(commits.submit(2)) == 20


async def test_given_up_and_cancelled_is_cancelled(server, commits):
    server.gate.clear()
    entry = commits.hand_in(1, at_once=True)
    waiting = asyncio.ensure_future(commits.answered(entry))
    await until(lambda: server.batches)
    waiting.cancel()
    entry.fail(TimeoutError("too late"))
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    entry.answer.exception()  # seen


async def test_a_commit_that_is_torn_down_is_an_error_and_no_cancellation():
    async def commit(items):
        raise asyncio.CancelledError

    commits = GroupCommit(commit)
    with pytest.raises(NotOpenError, match="closed in the middle"):
        await soon(commits.submit(1))


async def test_who_commits_for_himself_is_told_when_it_is_closed(server):
    commits = GroupCommit(server.commit)
    running = asyncio.create_task(commits.run())
    server.gate.clear()
    waiting = asyncio.ensure_future(commits.submit(1))
    await until(lambda: server.batches)
    running.cancel()
    with pytest.raises(NotOpenError):
        await soon(waiting)
    with pytest.raises(NotOpenError):
        await commits.submit(2)


async def test_a_bad_one_fails_alone(server, commits):
    server.bad = {2}
    answers = await submit(commits, [1, 2, 3])
    assert (answers[0], answers[2]) == (10, 30)
    assert isinstance(answers[1], BrokerError)


async def test_an_outage_fails_all_of_a_batch_at_once(server, commits):
    server.bad, server.error = {2}, BrokerUnavailable("gone")
    answers = await submit(commits, [1, 2, 3])
    assert {type(answer) for answer in answers} == {BrokerUnavailable}
    assert len(server.batches) == 1


async def batches_of(items, **limits):
    """How these are grouped when they are handed in at once; the size of an item is its value."""
    server = Server()
    commits = GroupCommit(server.commit, **limits)
    running = asyncio.create_task(commits.run())
    assert await submit(commits, items) == [item * 10 for item in items]
    running.cancel()
    await asyncio.wait([running])
    return server.batches


def itself(item):
    return item


async def test_batches_are_limited_in_bytes_and_what_is_larger_goes_alone():
    assert await batches_of([4, 6, 1, 10, 11, 50, 3, 3], size=itself, largest=10) == [
        [4, 6],
        [1],
        [10],
        [11],
        [50],
        [3, 3],
    ]
    assert await batches_of([0] * 7, size=itself, largest=10, limit=3) == [[0] * 3, [0] * 3, [0]]


async def test_a_mebibyte_unless_told_otherwise():
    assert list(map(len, await batches_of([300_000] * 7, size=itself))) == [3, 3, 1]
    assert list(map(len, await batches_of([300_000] * 7))) == [7]


async def test_what_was_cancelled_takes_no_room(server):
    commits = GroupCommit(server.commit, size=itself, largest=10)
    entries = [commits.hand_in(item) for item in (4, 9, 6)]
    entries[1].answer.cancel()
    running = asyncio.create_task(commits.run())
    assert await soon(asyncio.gather(entries[0].answer, entries[2].answer)) == [40, 60]
    assert server.batches == [[4, 6]]
    running.cancel()
    await asyncio.wait([running])


async def test_cancelled_before_its_batch_an_item_is_dropped(server, commits):
    server.gate.clear()
    first = asyncio.create_task(commits.submit(1))
    await asyncio.sleep(0)
    while not server.batches:
        await asyncio.sleep(0)
    second, third = (asyncio.create_task(commits.submit(item)) for item in (2, 3))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    server.gate.set()
    assert await soon(asyncio.gather(first, third)) == [10, 30]
    assert server.batches == [[1], [3]]


async def test_stopping_fails_what_is_pending_and_what_comes_later(server):
    commits = GroupCommit(server.commit)
    running = asyncio.create_task(commits.run())
    server.gate.clear()
    pending = [asyncio.create_task(commits.submit(item)) for item in range(3)]
    while not server.batches:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    for task in pending:
        with pytest.raises(NotOpenError):
            await soon(task)
    with pytest.raises(NotOpenError):
        await soon(commits.submit(4))


async def test_how_far_an_item_got(server, commits):
    server.gate.clear()
    first = commits.hand_in(1)
    while not server.batches:
        await asyncio.sleep(0)
    second = commits.hand_in(2)
    assert (first.on_its_way, second.on_its_way) == (True, False)
    server.gate.set()
    assert await soon(asyncio.gather(first.answer, second.answer)) == [10, 20]
    assert second.on_its_way
