"""Every fault of the catalogue once, small and short, with its accounting. `make faults` has them at full size."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from faults.accounting import Report, account
from faults.arena import QUICK, Scale
from faults.catalogue import CASES, run

SLACK = 20.0
"""Seconds of lateness that are forgiven here: the machine may be busy. What is counted is counted strictly."""

AT_ONCE = 2
"""Faults: what takes long about them is the waiting."""

NAMES = [name if case.quick else pytest.param(name, marks=pytest.mark.soak) for name, case in CASES.items()]
Reports = dict[str, Report]


@pytest.fixture(scope="module")
def going(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Reports]]]:
    """The faults of this session, each in every place, on their way in threads."""
    chosen = [item.callspec.params["name"] for item in request.session.items if item.name.startswith("test_fault[")]
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield {name: pool.submit(run_everywhere, name, QUICK) for name in chosen}
    finally:
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", NAMES)
def test_fault(name: str, going: dict[str, Future[Reports]]) -> None:
    check(going[name].result())


def run_everywhere(name: str, scale: Scale) -> Reports:
    return asyncio.run(everywhere(name, scale))


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
