"""What a stream of events says: in whatever order it comes, whatever is in it."""

from __future__ import annotations

import json

import pytest
from golden_events import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from aioretryq.events import Event, State
from aioretryq.protocol.event import decode_events


def event(kind, at=0.0, hostname="w@h", **fields):
    return Event(
        type=kind,
        hostname=hostname,
        timestamp=at,
        clock=int(at),
        fields=fields if kind.startswith("worker") else {"uuid": "i", **fields},
        received=at,
    )


RUN = [
    event("task-sent", 1, hostname="gen1@h", name="add", args="(1, 2)", kwargs="{}", retries=0, queue="celery"),
    event("task-received", 2, name="add", args="(1, 2)", kwargs="{}", retries=0),
    event("task-started", 3),
    event("task-progress", 4, percent=50),
    event("task-succeeded", 5, result="3", runtime=2.0),
]


def seen(events):
    state = State()
    for each in events:
        state.hear(each)
    return state.tasks["i"]


@given(st.permutations(RUN))
def test_the_order_of_arrival_does_not_matter(events):
    task = seen(events)
    assert (task.state, task.result, task.runtime, task.final) == ("SUCCESS", "3", 2.0, True)
    assert (task.name, task.args, task.worker, task.client, task.queue) == (
        "add",
        "(1, 2)",
        "w@h",
        "gen1@h",
        "celery",
    )
    assert task.times == {"sent": 1, "received": 2, "started": 3, "succeeded": 5}
    assert task.clock == 5


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("task-sent", "PENDING"),
        ("task-received", "RECEIVED"),
        ("task-started", "STARTED"),
        ("task-progress", "PROGRESS"),
        ("task-retried", "RETRY"),
        ("task-rejected", "REJECTED"),
        ("task-cancelled", "CANCELLED"),
        ("task-revoked", "REVOKED"),
        ("task-failed", "FAILURE"),
        ("task-succeeded", "SUCCESS"),
    ],
)
def test_states(kind, state):
    assert seen([event(kind, 1)]).state == state


def test_after_a_retry_everything_begins_anew():
    first = [event("task-received", 1, name="f", retries=0), event("task-started", 2)]
    retried = event("task-retried", 3, exception="OSError()")
    task = seen([*first, retried])
    assert (task.state, task.exception, task.final) == ("RETRY", "OSError()", False)
    again = [
        event("task-received", 4, name="f", retries=1, hostname="other@h"),
        event("task-started", 5, hostname="other@h"),
    ]
    task = seen([*first, retried, *again])
    assert (task.state, task.retries, task.worker, task.exception) == ("STARTED", 1, "other@h", None)
    # Late news of the first run does not undo that.
    assert seen([first[0], retried, *again, first[1]]).state == "STARTED"
    done = event("task-succeeded", 6, result="1")
    assert seen([first[0], *again, done, retried, first[1]]).state == "SUCCESS"


def test_a_task_that_was_handed_back_runs_again():
    events = [event("task-started", 1), event("task-cancelled", 2), event("task-received", 3, name="f")]
    assert seen(events).state == "RECEIVED"


def test_a_worker_is_alive_for_two_intervals():
    state = State()
    state.hear(
        event("worker-online", 10, freq=2.0, active=1, processed=7, loadavg=[1, 0.5, 0.25], sw_ident="x", sw_ver="1")
    )
    worker = state.workers["w@h"]
    assert (worker.active, worker.processed, worker.loadavg, worker.software) == (1, 7, (1.0, 0.5, 0.25), "x 1")
    assert [worker.alive(now) for now in (10, 13.9, 14.9, 15.1)] == [True, True, True, False]
    state.hear(event("worker-heartbeat", 16, freq=2.0))
    assert state.alive(17) == [worker]
    state.hear(event("worker-offline", 18, freq=2.0))
    assert not worker.alive(18)
    assert state.alive(18) == []


def test_clocks_that_differ_make_no_worker_dead():
    state = State()
    ahead = Event(type="worker-heartbeat", hostname="w@h", timestamp=5000.0, fields={"freq": 2.0}, received=10.0)
    state.hear(ahead)
    assert state.workers["w@h"].alive(11.0)
    assert state.workers["w@h"].drift == -4990.0


def test_workers_without_heartbeat_are_known_by_their_tasks():
    state = State()
    for each in RUN:
        state.hear(each)
    assert set(state.workers) == {"w@h"}
    assert state.workers["w@h"].alive(30)


def test_it_stays_small():
    state = State(max_workers=3, max_tasks=5)
    for number in range(100):
        name = {"uuid": str(number), "name": "x" * 100_000}
        state.hear(Event(type="task-received", hostname=f"w{number}@h", timestamp=1.0, fields=name))
        state.hear(Event(type=f"task-odd{number}", hostname="w@h", timestamp=1.0, fields={"uuid": "99"}))
    assert len(state.workers) == 3
    assert set(state.tasks) == {"96", "97", "98", "99", "95"} or len(state.tasks) == 5
    assert len(state.tasks["99"].name or "") < 5000
    assert len(state.tasks["99"].times) < 20


ODD = [None, True, 7, -1, 1.5, float("nan"), 2**70, "x", "x" * 5000, [], {}, [1, "a"], {"a": [1]}]
FIELDS = (
    "uuid name args kwargs retries eta result exception traceback runtime freq active processed loadavg sw_ident "
    "queue terminated state worker times"
).split()
HOSTILE = st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(ODD))
KINDS = st.sampled_from(
    "worker-online worker-heartbeat worker-offline task-sent task-received task-succeeded task-retried task- task-x "
    "worker- mine".split()
)


HOSTILE_EVENTS = st.builds(Event, type=KINDS, hostname=st.text(), timestamp=st.floats(0, 9), fields=HOSTILE)


@settings(max_examples=100)
@given(st.lists(HOSTILE_EVENTS, max_size=6))
def test_nothing_in_an_event_upsets_it(events):
    state = State()
    for each in events:
        state.hear(each)
    state.alive(5.0)
    for task in state.tasks.values():
        assert task.runtime is None or isinstance(task.runtime, (int, float))
        assert task.name is None or isinstance(task.name, str)


def test_golden_events_are_understood():
    state = State()
    for found in GOLDEN.values():
        for each in decode_events(json.dumps(found["raw"]).encode(), now=5.0):
            state.hear(each)
    states = {task.state for task in state.tasks.values()}
    assert {"SUCCESS", "FAILURE", "RETRY", "REVOKED"} <= states
