"""From what is sent to results, and to the record that is kept of a workflow."""

from __future__ import annotations

import json

import pytest

from aioretryq import AsyncResult, GroupResult, ProtocolError, TaskQueue
from aioretryq.ids import new_id
from aioretryq.results.many import ManyResults
from aioretryq.workflows.handles import results_of
from aioretryq.workflows.promises import Handle, ManyHandles
from aioretryq.workflows.record import DEEPEST, MANY, SHOWN, Step, read_record, record_key, record_of
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
        found.append(Handle(new_id(), task="t"))
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


def group_of(count, task="t"):
    return [Handle(new_id(), task=task) for _ in range(count)]


def read_back(handle):
    return read_record(json.loads(json.dumps(record_of(handle))))


class TestRecords:
    def test_of_one_call_there_is_none(self):
        assert record_of(Handle("a")) is None
        assert read_record(None) is None
        assert record_key("a") == "workflow-a"

    def test_back_and_forth(self):
        members = [Handle("a", task="t.a"), Handle("b", Handle("before"))]
        header = Handle("g", Handle("first", task="t.first"), members)
        assert read_back(Handle("last", Handle("body", header, task="t.body"))) == [
            Step("first", "t.first"),
            Step("g", members=[[Step("a", "t.a")], [Step("before"), Step("b")]]),
            Step("body", "t.body"),
            Step("last"),
        ]

    def test_what_is_large(self):
        members = many(100_000)
        assert read_back(Handle("g", members=members)) == [Step("g", "t", ids=members.ids)]
        assert len(json.dumps(record_of(Handle("g", members=members)))) < 22 * 100_000
        assert len(json.dumps(record_of(Handle("g", members=many(SHOWN))))) < 8000
        assert len(read_back(chain_of(5000))) == 5000

    def test_ids_that_are_no_uuids(self):
        members = [Handle(f"mine {number}") for number in range(SHOWN + 1)]
        assert list(read_back(Handle("g", members=members))[0].ids) == [each.id for each in members]

    def test_those_of_different_tasks_keep_their_names(self):
        (step,) = read_back(Handle("g", members=[*group_of(SHOWN), *group_of(1, "other")]))
        assert [(each.task,) for (each,) in step.members] == [("t",)] * SHOWN + [("other",)]

    def test_names_of_many(self):
        """Of what is sent piece by piece, too."""
        names = ["a", "a", None, "b", "a", "b"]
        found = ManyHandles()
        for number, name in enumerate(names):
            found.append(Handle(f"{number}", task=name))
        assert [each.task for each in found] == [each.task for each in found[:]] == names
        assert [each.task for each in many(3)] == ["t"] * 3

    def test_very_many_different_ones(self):
        """Their ids are kept. With groups among them all is: these are no tasks that one could wait for."""
        different = [*group_of(MANY), *group_of(1, "other")]
        (step,) = read_back(Handle("g", members=different))
        assert (step.task, list(step.ids)) == (None, [each.id for each in different])
        (step,) = read_back(Handle("g", members=[*different, Handle("h", members=group_of(1))]))
        assert len(step.members) == MANY + 2

    def test_what_is_deep(self):
        deep = Handle("x")
        for number in range(2000):
            deep = Handle(f"g{number}", members=[deep, Handle(f"x{number}")])
        record = json.dumps(record_of(deep))
        assert record.count("members") == DEEPEST
        assert json.loads(record) is not None
        (step,) = read_back(deep)
        while step.members is not None:
            ((step,), _) = step.members
        assert (len(step.ids), step.ids[0], step.ids[1]) == (2000 - DEEPEST + 1, "x", "x0")

    @pytest.mark.parametrize(
        "data",
        [5, [], {}, {"workflow": 2, "steps": []}, {"workflow": 1}, {"workflow": 1, "steps": [5]},
         {"workflow": 1, "steps": [{"id": 5}]}, {"workflow": 1, "steps": [{"id": "a", "members": 5}]},
         {"workflow": 1, "steps": [{"id": "a", "members": [5]}]}, {"workflow": 1, "steps": [{"id": "a", "ids": 5}]},
         {"workflow": 1, "steps": [{"id": "a", "ids": [5]}]}, {"workflow": 1, "steps": [{"id": "a", "ids": "?"}]}],
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
