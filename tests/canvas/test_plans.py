"""What a queue offers for workflows: signatures by name, plans that can be looked at and sent, results of several."""

from __future__ import annotations

import pytest
from canvas.composing import s
from canvas.planning import node_of
from celery import chain, chord, group

from aioretryq import canvas
from aioretryq.errors import UnknownSettingError
from aioretryq.workflows.sending import start
from queues import soon


async def test_a_signature_by_name(queue, worker):
    made = queue.signature("w.add", (1, 2), queue="celery")
    assert made["options"] == {"queue": "celery"}
    assert await soon((await made).get()) == 3
    alone = queue.signature("w.echo", ("own",), immutable=True)
    assert await soon((await (made | alone)).get()) == "own"
    with pytest.raises(UnknownSettingError, match="quue"):
        queue.signature("w.add", quue="x")


async def test_a_plan_is_looked_at_and_then_sent(queue, worker):
    add, total = queue.signature("w.add", (1,)), queue.signature("w.total")
    plan = queue.compile(canvas.chord([add, add], total), (10,), priority=3)
    assert [(m.task, m.args, m.priority) for m in plan.messages] == [("w.add", [10, 1], 3)] * 2
    (batch,) = plan.batches()
    assert ([*batch.messages], [*batch.openings], batch.last) == (plan.messages, plan.openings, True)
    result = await queue.send(plan)
    assert result.id == plan.result.id
    assert await soon(result.get()) == 22
    assert await queue.send(queue.compile(canvas.chain())) is None


async def test_results_of_several(queue, worker):
    results = [await queue.send_task("w.add", [number]) for number in (1, 2)]
    made = queue.GroupResult("several", results)
    assert await soon(made.get()) == [1, 2]
    await made.save()
    assert (await type(made).restore("several", queue)) == made
    assert await soon(queue.ResultSet(results).get()) == [1, 2]


async def test_what_a_task_sends_are_its_children(queue, worker):
    @queue.task(name="w.sends", bind=True)
    async def sends(self):
        result = await start(self.app, node_of(chord([s("family"), s("family")], s("echo"))))
        many = await start(self.app, node_of(group(*[s("add", 1) for _ in range(150)])))
        after = await start(self.app, node_of(chain(s("family"), s("echo"))))
        return [result.id, many.id, after.id]

    @queue.task(name="w.family", bind=True)
    async def family(self):
        return [self.request.root_id, self.request.parent_id]

    sent = await queue.send_task("w.sends")
    body, many, after = await soon(sent.get())
    ours = [sent.id, sent.id]
    assert await soon(queue.AsyncResult(body).get()) == [ours, ours]
    assert await soon(queue.AsyncResult(after).get()) == ours
    header, several, first = (await queue.results.get_task_meta(sent.id)).children
    assert len(header[1]) == 2
    assert (several[0][0], len(several[1])) == (many, 150)
    assert first[1] is None


async def test_a_group_of_one_chain_that_ends_in_a_group_has_its_result(queue, worker):
    inner = group(s("add", 1), s("add", 2))
    result = await start(queue, node_of(group(chain(s("add", 10), inner))))
    assert await soon(result.get()) == [11, 12]
