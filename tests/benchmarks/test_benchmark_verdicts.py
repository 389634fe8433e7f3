"""From reports to the table: who is fastest, by how much, and who has no figure."""

import pytest

from benchmarks import check, table
from benchmarks.verdicts import Outcome, fastest, lines, times_better
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.model import Bar, Figure, Workload

RATE = Figure("rate", "tasks/s", more_is_better=True, bar=Bar(times=8))
TIME = Figure("seconds", "seconds", 2, bar=Bar(limit=0.5))
WORKLOAD = Workload("{tasks} tasks", lambda stage, tasks: {}, (RATE, TIME), (), 10)


def outcome(**figures):
    return Outcome([{key: value} for key, values in figures.items() for value in values])


def test_the_median_of_all_rounds():
    assert outcome(rate=[1.0, 9.0, 5.0]).median("rate") == 5.0
    assert outcome(rate=[1.0]).median("other") is None


def test_who_failed_once_has_no_figure():
    failed = outcome(rate=[1.0, 9.0])
    failed.failure = "1 of 5 tasks ran more than once"
    assert failed.median("rate") is None


def test_the_fastest_peer_is_neither_ours_nor_the_ceiling_nor_one_that_failed():
    wrong = outcome(rate=[300.0])
    wrong.failure = "it lost one"
    found = {
        "aioretryq": outcome(rate=[900.0]),
        "ceiling": outcome(rate=[999.0]),
        "saq": outcome(rate=[200.0]),
        "arq": outcome(rate=[100.0]),
        "rq": wrong,
    }
    assert fastest(RATE, found) == ("saq", 200.0)


def test_less_may_be_better():
    assert fastest(TIME, {"saq": outcome(seconds=[2.0]), "arq": outcome(seconds=[3.0])}) == ("saq", 2.0)


@pytest.mark.parametrize(("figure", "ours", "peer", "ratio"), [(RATE, 8.0, 2.0, 4.0), (TIME, 2.0, 8.0, 4.0)])
def test_the_ratio_says_how_many_times_better(figure, ours, peer, ratio):
    assert times_better(figure, ours, peer) == ratio


def test_no_ratio_without_both():
    assert times_better(RATE, None, 1.0) is None
    assert times_better(RATE, 1.0, None) is None
    assert times_better(TIME, 0.0, 1.0) is None


@pytest.mark.parametrize(
    ("bar", "ours", "ratio", "reached"),
    [
        (Bar(times=8), 1.0, 8.0, True),
        (Bar(times=8), 1.0, 7.9, False),
        (Bar(times=8), 1.0, None, False),
        (Bar(limit=50), 50.0, None, True),
        (Bar(limit=50), 51.0, 9.0, False),
        (Bar(times=1, limit=1), 0.9, 1.1, True),
        (Bar(times=1, limit=1), 0.9, 0.9, False),
    ],
)
def test_bars(bar, ours, ratio, reached):
    assert bar.reached(ours, ratio, more_is_better=False) is reached


def test_a_bar_that_more_reaches():
    assert Bar(limit=0.9).reached(0.95, None, more_is_better=True)
    assert not Bar(limit=0.9).reached(0.85, None, more_is_better=True)


def test_without_our_figure_no_bar_is_reached():
    broken = Outcome(failure="it exited")
    assert [line.reached for line in lines("drain", WORKLOAD, "10 tasks", {"aioretryq": broken})] == [False, False]


def test_the_tables_tell_figures_and_reasons():
    found = {
        "aioretryq": outcome(rate=[900.0, 1000.0], seconds=[0.25]),
        "saq": outcome(rate=[100.0], seconds=[1.0]),
        "rq": Outcome(failure="runs one task at a time"),
    }
    final = table.final(lines("drain", WORKLOAD, "10 tasks", found)).splitlines()
    assert [cell.strip() for cell in final[2].split("|")[1:-1]] == [
        "10 tasks", "tasks/s", "saq 100", "950", "9.50", ">= 8x", "reached",
    ]  # fmt: skip
    assert [cell.strip() for cell in final[3].split("|")[1:-1]] == [
        "", "seconds", "saq 1.00", "0.25", "4.00", "<= 0.5", "reached",
    ]  # fmt: skip
    full = table.details(WORKLOAD, found)
    assert "950 (900-1,000)" in full
    assert "- rq: runs one task at a time" in full


def test_every_workload_is_named_by_its_tasks():
    for workload in WORKLOADS.values():
        assert workload.title.format(tasks=workload.tasks)
        assert len({figure.key for figure in workload.figures}) == len(workload.figures)


def test_what_grew_is_named():
    baseline = {"worker: calls": 100.0, "worker: reads": 0.05, "worker: commands": 5.0}
    assert check.grown({"worker: calls": 104.0, "worker: reads": 0.07, "worker: commands": 5.4}, baseline) == []
    assert check.grown({"worker: calls": 110.0}, baseline) == [
        "worker: calls grew from 100 to 110 (10% more, 5% is tolerated)"
    ]
    assert check.grown({"worker: commands": 6.0}, baseline) != []
    assert check.grown({"something new": 6.0}, baseline) == []


def test_what_nobody_counts_any_more_is_named():
    assert check.lost({}, {"worker: calls": 1.0}) == ["worker: calls is in the baseline, but is not measured"]
