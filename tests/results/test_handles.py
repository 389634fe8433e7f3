"""From what is sent to results, and to the record that is kept of a workflow."""

from __future__ import annotations

import json

import pytest

from aioretryq import AsyncResult, GroupResult, ProtocolError, TaskQueue
from aioretryq.ids import new_id
from aioretryq.message import TaskMessage
from aioretryq.results.many import ManyResults
from aioretryq.workflows.handles import results_of
from aioretryq.workflows.promises import Handle, ManyHandles
from aioretryq.workflows.record import SHOWN, Step, names_of, read_record, record_key, record_of
from queues import memory_url


@pytest.fixture
def queue():
    return TaskQueue(memory_url())


def chain_of(count):
    handle = None
    for number in range(count):
        handle = Handle(f"step-{number}", handle)
    return handle


def many(count):
    found = ManyHandles()
    for _ in range(count):
        found.append(Handle(new_id()))
    return found


class TestResults:
    def test_of_a_task_and_of_a_group(self, queue):
        assert results_of(Handle("a"), queue) == AsyncResult("a", queue)
        found = results_of(
            Handle("g", Handle("p"), [Handle("a"), Handle("h", members=[Handle("b", Handle("c"))])]), queue
        )
        inner = GroupResult("h", [AsyncResult("b", queue)], queue)
        assert found == GroupResult("g", [AsyncResult("a", queue), inner], queue)
        assert (found.parent, found[1][0].parent) == (AsyncResult("p", queue), AsyncResult("c", queue))

    def test_of_very_many_steps(self, queue):
        handle = chain_of(20_000)
        found = results_of(handle, queue)
        assert found.as_list() == [f"step-{number}" for number in reversed(range(20_000))]
        assert [found.id, handle.id] == ["step-19999"] * 2
        assert len(handle.as_tuple()) == 2

    def test_of_very_many_members(self, queue):
        handles = many(5000)
        found = results_of(Handle("body", Handle("g", members=handles)), queue).parent
        assert isinstance(found.results, ManyResults)
        assert found.results.ids == handles.ids
        handles.append(Handle("later", Handle("before")))
        handles.append(Handle("plain"))
        found = results_of(Handle("g", members=handles), queue)
        assert found.as_list() == list(handles.ids)
        assert (found.results.ids, found[5000].parent, found[5001]) == (
            None,
            AsyncResult("before", queue),
            AsyncResult("plain", queue),
        )
        assert [each.id for each in found.results[4998:5001]] == [each.id for each in handles[4998:5001]]


def message(task_id, task, **more):
    return TaskMessage(id=task_id, task=task, **more)


def call(task_id, task, **more):
    return {"task": task, "options": {"task_id": task_id, **more}, "kwargs": {}, "subtask_type": None}


class TestRecords:
    def test_of_one_call_there_is_none(self):
        assert record_of(Handle("a"), {}) is None
        assert read_record(None) is None
        assert record_key("a") == "workflow-a"

    def test_names(self):
        body = call("body", "t.body", chord=call("outer", "t.outer"))
        inner = {
            "task": "celery.chord",
            "subtask_type": "chord",
            "options": {"task_id": "g2"},
            "kwargs": {"header": [call("h1", "t.h")], "body": call("b2", "t.b2")},
        }
        several = {
            "task": "celery.group",
            "subtask_type": "group",
            "options": {},
            "kwargs": {"tasks": [inner, call("x", "t.x")]},
        }
        parts = [message(name, "t.part", chord=body, chain=[several, call("next", "t.next")]) for name in "ab"]
        assert names_of(parts) == {
            "a": "t.part",
            "b": "t.part",
            "body": "t.body",
            "outer": "t.outer",
            "h1": "t.h",
            "b2": "t.b2",
            "x": "t.x",
            "next": "t.next",
        }
        odd = {"task": 5, "options": "no", "kwargs": {"tasks": [None, 3]}, "subtask_type": "group"}
        assert names_of([message("a", "t", chain=[odd, {}])]) == {"a": "t"}

    def test_back_and_forth(self):
        header = Handle("g", Handle("first"), [Handle("a"), Handle("b", Handle("before"))])
        handle = Handle("last", Handle("body", header))
        names = {"first": "t.first", "a": "t.a", "body": "t.body"}
        data = json.loads(json.dumps(record_of(handle, names)))
        assert read_record(data) == [
            Step("first", "t.first"),
            Step("g", members=[[Step("a", "t.a")], [Step("before"), Step("b")]]),
            Step("body", "t.body"),
            Step("last"),
        ]

    def test_what_is_large(self):
        assert read_record(record_of(Handle("g", members=many(100_000)), {"g": "t"})) == [
            Step("g", "t", count=100_000)
        ]
        assert len(json.dumps(record_of(Handle("g", members=many(SHOWN)), {}))) < 6000
        assert len(read_record(record_of(chain_of(5000), {}))) == 5000
        deep = Handle("x")
        for number in range(2000):
            deep = Handle(f"g{number}", members=[deep])
        assert json.dumps(record_of(deep, {})).count("members") == 50

    @pytest.mark.parametrize(
        "data",
        [5, [], {}, {"workflow": 2, "steps": []}, {"workflow": 1}, {"workflow": 1, "steps": [5]},
         {"workflow": 1, "steps": [{"id": 5}]}, {"workflow": 1, "steps": [{"id": "a", "members": 5}]},
         {"workflow": 1, "steps": [{"id": "a", "members": [5]}]}],
        ids=str,
    )  # fmt: skip
    def test_what_is_no_record(self, data):
        with pytest.raises(ProtocolError):
            read_record(data)

    def test_endless_ones(self):
        steps = [{"id": "g", "members": []}]
        steps[0]["members"].append(steps)
        with pytest.raises(ProtocolError):
            read_record({"workflow": 1, "steps": steps})
