"""What the harness of the benchmarks takes for proof that each task ran once."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from benchmarks import place, proof
from benchmarks.proof import Ledger, Page, mapped

TASKS = 5
ROOT = Path(__file__).parents[2]


@pytest.fixture
def page(tmp_path):
    return lambda name: Page(mapped(tmp_path / f"{name}.proof", TASKS), TASKS)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path, TASKS)


def run(page, *numbers):
    for number in numbers:
        page.start(number)
        page.done(number)


def test_all_once_is_a_proof(page, ledger):
    began = time.monotonic()
    run(page("1"), 0, 2, 4)
    run(page("2"), 1, 3)
    assert ledger.ran() == TASKS
    assert ledger.verdict() is None
    assert began <= ledger.began() <= ledger.ended() <= time.monotonic()
    assert all(ledger.began() <= start <= ledger.ended() for start in ledger.starts())


def test_nothing_ran(ledger):
    assert ledger.verdict() == "5 of 5 tasks did not run"
    assert ledger.began() == ledger.ended() == 0


def test_one_that_is_missing(page, ledger):
    run(page("1"), 0, 1, 2, 3)
    assert ledger.verdict() == "1 of 5 tasks did not run"


def test_a_part_may_be_enough(page, ledger):
    run(page("1"), 0, 1, 2)
    assert ledger.verdict(upto=3) is None
    assert ledger.verdict(upto=4) == "2 of 5 tasks did not run"


def test_twice_in_one_process(page, ledger):
    run(page("1"), 0, 1, 2, 3, 4, 2)
    assert ledger.verdict() == "1 of 5 tasks ran more than once"


def test_once_in_each_of_two_processes_is_twice(page, ledger):
    run(page("1"), 0, 1, 2, 3, 4)
    run(page("2"), 4)
    assert ledger.verdict() == "1 of 5 tasks ran more than once"


def test_twice_is_the_reason_even_if_a_part_was_enough(page, ledger):
    run(page("1"), 0, 0)
    assert ledger.verdict(upto=1) == "1 of 5 tasks ran more than once"


def test_started_is_not_done(page, ledger):
    page("1").start(0)
    assert ledger.ran() == 0
    assert ledger.verdict() == "5 of 5 tasks did not run"


@pytest.fixture
def recording(tmp_path, monkeypatch):
    """This process as a worker: where it writes is a matter of its environment."""
    monkeypatch.setattr(place, "PROOF", str(tmp_path))
    monkeypatch.setattr(place, "TASKS", TASKS)
    proof.forget()
    yield
    proof.forget()


@pytest.mark.usefixtures("recording")
def test_warm_ups_are_not_counted(tmp_path):
    assert proof.done(-1) == -1
    assert proof.done(TASKS) == TASKS
    assert not list(tmp_path.glob("*.proof"))


FORKING = """
import os
from benchmarks import proof
proof.done(0)
if child := os.fork():
    os.waitpid(child, 0)
else:
    proof.done(0)
"""


def test_a_child_has_a_page_of_its_own(tmp_path, ledger):
    told = {"BENCHMARK_PROOF": str(tmp_path), "BENCHMARK_TASKS": str(TASKS)}
    subprocess.run([sys.executable, "-c", FORKING], env={**os.environ, **told}, cwd=ROOT, check=True)
    assert len(list(tmp_path.glob("*.proof"))) == 2
    assert ledger.verdict(upto=1) == "1 of 5 tasks ran more than once"


@pytest.mark.usefixtures("recording")
def test_threads_share_a_page(ledger):
    with ThreadPoolExecutor(TASKS) as threads:
        barrier = Barrier(TASKS)

        def one(number):
            barrier.wait()
            return proof.done(number)

        assert sorted(threads.map(one, range(TASKS))) == list(range(TASKS))
    assert ledger.verdict() is None
