"""Every fault of the catalogue once, small and short, with its accounting. `make faults` has them at full size."""

from __future__ import annotations

import asyncio

import pytest

from faults.accounting import Report, account
from faults.arena import QUICK, Scale
from faults.catalogue import CASES, run

SLACK = 20.0
"""Seconds of lateness that are forgiven here: the machine may be busy. What is counted is counted strictly."""

NAMES = [name if case.quick else pytest.param(name, marks=pytest.mark.soak) for name, case in CASES.items()]
Reports = dict[str, Report]


@pytest.mark.parametrize("name", NAMES)
async def test_fault(name: str) -> None:
    check(await everywhere(name, QUICK))


async def everywhere(name: str, scale: Scale) -> Reports:
    """In each place at the same time."""
    case = CASES[name]
    reports = await asyncio.gather(*(run(case, place, scale) for place in case.places))
    return {f"{case.title} on {place}": report for place, report in zip(case.places, reports, strict=True)}


def check(reports: Reports) -> None:
    for where, report in reports.items():
        assert not report.problems(slack=SLACK), f"{where}: {report}\n{report.log[-8000:]}"


def test_the_accounting_finds_what_is_missing_and_what_is_there_twice() -> None:
    counted = account(
        ["done", "twice", "killed", "waits", "parked", "dead", "gone"],
        ends={"done": 1, "twice": 2, "killed": 2, "waits": 1},
        queued=["waits", "parked"],
        dead=["dead"],
        excused=["killed", "done"],
        left=["parked"],
    )
    assert (counted.published, counted.executed, counted.queued, counted.dead, counted.lost) == (7, 3, 2, 1, 1)
    assert (counted.stuck, counted.duplicated, counted.excused) == (1, 2, 1)
    assert counted.problems == ["1 lost", "1 stuck", "1 run twice without a worker having died with them"]
    assert not account(["done"], ends={"done": 1}, queued=[], dead=[]).problems
