"""What cannot be, or cannot be sent, is said before anything of a workflow is sent."""

from __future__ import annotations

import pytest
from canvas.composing import s
from canvas.planning import node_of, planned
from celery import chain, chord, group

from aioretryq import TaskQueue
from aioretryq.errors import ConfigError, EncodeError, PayloadTooLarge, ProtocolError
from aioretryq.protocol.signature import CHAIN, MAX_DEPTH, TASK, Node, chord_of, group_of
from aioretryq.workflows.sending import start
from queues import memory_url, soon

CHORDS = {
    "a chord": chord([s("a")], s("b")),
    "a group that something follows": chain(group(s("a"), s("b")), s("c")),
    "later": chain(s("a"), s("b"), group(s("a"), s("b")), s("c")),
    "in a group": group(s("a"), chain(s("b"), chord([s("a")], s("b")))),
    "in a chain in a chain": chain(s("x"), chain(s("a"), group(s("a"), s("b"))), s("c")),
}


@pytest.mark.parametrize("kind", CHORDS)
async def test_a_chord_where_nobody_counts(kind):
    async with TaskQueue(memory_url(), backend="disabled://") as queue:
        with pytest.raises(ConfigError, match="result_backend"):
            await start(queue, node_of(CHORDS[kind]))
        assert await waiting(queue) == 0
        assert await start(queue, node_of(group(s("a"), s("b")))) is not None
        assert await start(queue, node_of(chain(s("a"), group(s("b"), s("c"))))) is not None


async def waiting(queue: TaskQueue) -> int:
    return len((await queue.broker.claim(["celery"], limit=100)).deliveries)


async def test_arguments_that_cannot_be_sent(queue):
    for step in (1, 0):
        steps = [Node(TASK, "w.add", args=(1,)), Node(TASK, "w.add", args=(1,))]
        steps[step] = Node(TASK, "w.add", args=(object(),))
        for node in (Node(CHAIN, "celery.chain", steps=tuple(steps)), group_of(steps)):
            with pytest.raises(EncodeError, match="object"):
                await start(queue, node)
        with pytest.raises(EncodeError, match="object"):
            await start(queue, chord_of(group_of(steps[:1]), steps[1]))


async def test_cycles(queue):
    endless: list = []
    endless.append(endless)
    with pytest.raises((EncodeError, ConfigError, ProtocolError)):
        await start(queue, group_of([Node(TASK, "w.add", args=(1,)), Node(TASK, "w.add", args=(endless,))]))


async def test_too_large(queue):
    queue.conf.max_payload_bytes = 10_000
    large = Node(TASK, "w.add", args=("x" * 20_000,))
    with pytest.raises(PayloadTooLarge, match=r"max_payload_bytes|10,000"):
        await start(queue, group_of([Node(TASK, "w.add", args=(1,)), large]))


@pytest.mark.parametrize(
    "workflow",
    [
        group(s("a", task_id="T"), s("b", task_id="T")),
        chain(s("a", task_id="T"), s("b"), s("c", task_id="T")),
        chord([s("a", task_id="T")], s("b", task_id="T")),
    ],
)
def test_one_id_for_two_calls(workflow):
    with pytest.raises(ConfigError, match="'T'"):
        planned(workflow)


@pytest.mark.parametrize("follows", [False, True])
def test_one_id_for_two_of_very_many(follows):
    def made(last):
        members = [Node(TASK, "w.a", options={"task_id": str(number)}) for number in [*range(150), last]]
        return of(group_of(members), Node(TASK, "w.b")) if follows else group_of(members)

    assert len([message for batch in planned(made(150)).batches() for message in batch.messages]) == 151
    with pytest.raises(ConfigError, match="'7'"):
        list(planned(made(7)).batches())
    wrong = group_of([Node(TASK, "w.a")] * 150 + [Node(TASK, "w.a", options={"priority": 44})])
    with pytest.raises(ConfigError, match="priority"):
        list(planned(wrong).batches())


def test_nested_more_deeply_than_anybody_reads():
    node = Node(TASK, "w.a")
    for _ in range(MAX_DEPTH + 1):
        node = Node(CHAIN, "celery.chain", steps=(node, Node(TASK, "w.b")))
    with pytest.raises(ConfigError, match="nested"):
        planned(node)


def test_options_of_a_later_step():
    with pytest.raises(ConfigError, match="priority"):
        planned(chain(s("a"), s("b", priority=77)))
    with pytest.raises(ConfigError, match="not a time"):
        planned(chain(s("a"), s("b", countdown="soon")))


def empty() -> Node:
    return Node(CHAIN, "celery.chain", subtask_type=CHAIN)


def of(*steps: Node) -> Node:
    return Node(CHAIN, "celery.chain", subtask_type=CHAIN, steps=steps)


class TestEmptyChains:
    async def test_alone(self, queue):
        assert await start(queue, empty()) is None
        assert await start(queue, of(empty(), of(empty()))) is None

    async def test_as_steps_and_members(self, queue, worker):
        one, two = Node(TASK, "w.echo", args=(1,)), Node(TASK, "w.echo", args=(2,))
        assert await soon((await start(queue, of(empty(), one, of(empty()), empty()))).get()) == 1
        assert await soon((await start(queue, group_of([one, empty(), of(empty()), two]))).get()) == [1, 2]
        header = group_of([empty(), one, two])
        assert await soon((await start(queue, chord_of(header, Node(TASK, "w.total")))).get()) == 3
        assert await soon((await start(queue, of(header, empty(), Node(TASK, "w.total")))).get()) == 3
        nothing = chord_of(group_of([empty(), of(empty())]), Node(TASK, "w.echo"))
        assert await soon((await start(queue, nothing)).get()) == []

    def test_as_a_body(self):
        with pytest.raises(ProtocolError, match="body"):
            planned(chord_of(group_of([Node(TASK, "w.a")]), empty()))


async def test_an_empty_group(queue, worker):
    assert await soon((await start(queue, group_of([]))).get()) == []
    follows = of(group_of([]), Node(TASK, "w.echo", args=([1],)))
    assert await soon((await start(queue, follows)).get()) == [1]


async def test_an_unknown_task_in_the_middle_fails_the_rest(queue, worker):
    queue.conf.unknown_task_timeout = 0.0
    result = await start(queue, node_of(chain(s("add", 1, 2), s("nowhere"), s("add", 1))))
    with pytest.raises(Exception, match=r"w\.nowhere"):
        await soon(result.get())
